"""Signed URLs of files, valid for five minutes without an API key (measured)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final
from urllib.parse import urlencode

from attrs import frozen

_LIFETIME: Final = 300
"""Seconds for which a URL is valid: FILES_ACCESS_TIMEOUT (server source)."""


@frozen
class SignedUrls:
    """A signer and verifier of file URLs."""

    secret: str

    def create(self, origin: str, file_id: str, now: float, *, attachment: bool = False) -> str:
        """Create a URL for a file; browsers save it if `attachment` is set."""
        timestamp, nonce = str(int(now)), secrets.token_hex(16)
        query = {
            "timestamp": timestamp,
            "nonce": nonce,
            "sign": self._sign(file_id, timestamp, nonce),
        }
        if attachment:
            query["as_attachment"] = "true"
        return f"{origin}/files/{file_id}/file-preview?{urlencode(query)}"

    def is_valid(self, file_id: str, timestamp: str, nonce: str, sign: str, now: float) -> bool:
        """Return whether the signature of a URL is correct and not expired."""
        if not hmac.compare_digest(self._sign(file_id, timestamp, nonce), sign):
            return False
        return now - int(timestamp) <= _LIFETIME

    def _sign(self, file_id: str, timestamp: str, nonce: str) -> str:
        message = f"file-preview|{file_id}|{timestamp}|{nonce}".encode()
        digest = hmac.new(self.secret.encode(), message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode()
