"""The wire format: endpoints, and encoding and decoding of requests and responses. No I/O."""
