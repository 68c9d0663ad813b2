"""Sentences of the generated manuals in several languages: facts, questions and filler.

Where possible a question uses other words than its fact, so that semantic and full-text search
differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen
class Fact:
    """A sentence with the slots `part`, `product` and `value`, and the question it answers."""

    heading: str
    text: str
    question: str
    low: int
    high: int


@frozen(kw_only=True)
class Language:
    """The sentences of one language."""

    code: str
    title: str
    parts: Sequence[str]
    facts: Sequence[Fact]
    filler: Sequence[str]
    space: str = " "
    """Separator between sentences."""

    latin: bool = True
    """Whether the standard PDF fonts have its letters."""


ENGLISH = Language(
    code="en",
    title="{product}: operating manual",
    parts=("main valve", "feed pump", "drive belt", "intake filter", "exhaust fan", "level sensor",
           "control panel", "buffer battery", "cooling jacket", "safety switch"),
    facts=(
        Fact("Pressure", "The {part} of the {product} is rated for {value} bar.",
             "How much pressure does the {part} of the {product} withstand?", 2, 90),
        Fact("Maintenance", "Replace the {part} of the {product} every {value} months.",
             "How often must the {part} of the {product} be exchanged?", 2, 60),
        Fact("Temperature", "Above {value} degrees the {part} of the {product} shuts down.",
             "At which heat does the {part} of the {product} switch off?", 35, 160),
        Fact("Assembly", "Tighten the {part} of the {product} with {value} newton metres.",
             "Which torque do the screws of the {part} of the {product} need?", 4, 120),
        Fact("Supply", "The {part} of the {product} draws {value} watts in normal operation.",
             "What is the power consumption of the {part} of the {product}?", 5, 900),
    ),
    filler=(
        "Read this chapter completely before you begin.",
        "Work on the {part} is reserved to trained staff.",
        "Keep the {part} dry and free of dust.",
        "A note in the log is made after each inspection.",
        "If a message appears on the display, write down its number and call the service.",
        "Spare parts are kept for ten years after the end of production.",
        "Wear gloves whenever the cover of the {part} is open.",
        "The figures in this chapter hold at sea level and at room temperature.",
        "Earlier editions of this manual are no longer valid.",
        "After a long standstill, let the {part} run without load for some minutes.",
    ),
)  # fmt: skip

GERMAN = Language(
    code="de",
    title="{product}: Betriebsanleitung",
    parts=("Hauptventil", "Förderpumpe", "Antriebsriemen", "Ansaugfilter", "Abluftgebläse",
           "Füllstandsgeber", "Bedienfeld", "Pufferbatterie", "Kühlmantel", "Sicherheitsschalter"),
    facts=(
        Fact("Druck", "{part} {product}: zulässig sind {value} bar.",
             "Welchen Druck hält {part} {product} aus?", 2, 90),
        Fact("Wartung", "{part} {product}: alle {value} Monate ersetzen.",
             "Wie oft muss {part} {product} ausgetauscht werden?", 2, 60),
        Fact("Temperatur", "{part} {product}: Abschaltung über {value} Grad.",
             "Bei welcher Hitze geht {part} {product} aus?", 35, 160),
        Fact("Montage", "{part} {product}: mit {value} Newtonmeter anziehen.",
             "Welches Drehmoment brauchen die Schrauben für {part} {product}?", 4, 120),
    ),
    filler=(
        "Lesen Sie dieses Kapitel ganz, bevor Sie beginnen.",
        "Arbeiten am Gerät sind geschultem Personal vorbehalten.",
        "Halten Sie das Gerät trocken und frei von Staub.",
        "Nach jeder Prüfung folgt ein Eintrag in das Betriebsbuch.",
        "Ersatzteile werden zehn Jahre lang vorgehalten.",
        "Die Angaben gelten auf Meereshöhe und bei Raumtemperatur.",
        "Frühere Ausgaben dieser Anleitung sind nicht mehr gültig.",
        "Tragen Sie Handschuhe, solange die Abdeckung offen ist.",
    ),
)  # fmt: skip

FRENCH = Language(
    code="fr",
    title="{product} : manuel d'utilisation",
    parts=("vanne principale", "pompe d'alimentation", "courroie", "filtre d'aspiration",
           "ventilateur", "capteur de niveau", "pupitre", "batterie tampon"),
    facts=(
        Fact("Pression", "{product}, {part} : pression admise {value} bars.",
             "Quelle pression supporte l'élément « {part} » de {product} ?", 2, 90),
        Fact("Entretien", "{product}, {part} : à remplacer tous les {value} mois.",
             "À quelle fréquence changer l'élément « {part} » de {product} ?", 2, 60),
        Fact("Température", "{product}, {part} : arrêt au-dessus de {value} degrés.",
             "À quelle chaleur l'élément « {part} » de {product} s'éteint-il ?", 35, 160),
    ),
    filler=(
        "Lisez tout ce chapitre avant de commencer.",
        "Les travaux sont réservés au personnel formé.",
        "Gardez l'appareil au sec et à l'abri de la poussière.",
        "Chaque contrôle est noté dans le journal.",
        "Les pièces de rechange sont disponibles pendant dix ans.",
        "Portez des gants tant que le capot est ouvert.",
    ),
)  # fmt: skip

SPANISH = Language(
    code="es",
    title="{product}: manual de uso",
    parts=("válvula principal", "bomba de alimentación", "correa", "filtro de entrada",
           "ventilador", "sensor de nivel", "panel de mando", "batería de reserva"),
    facts=(
        Fact("Presión", "{product}, {part}: presión máxima de {value} bares.",
             "¿Cuánta presión aguanta la pieza «{part}» de {product}?", 2, 90),
        Fact("Mantenimiento", "{product}, {part}: sustituir cada {value} meses.",
             "¿Cada cuánto se cambia la pieza «{part}» de {product}?", 2, 60),
        Fact("Temperatura", "{product}, {part}: se detiene por encima de {value} grados.",
             "¿Con qué calor se apaga la pieza «{part}» de {product}?", 35, 160),
    ),
    filler=(
        "Lea este capítulo entero antes de empezar.",
        "Los trabajos quedan reservados al personal formado.",
        "Mantenga el equipo seco y sin polvo.",
        "Tras cada revisión se anota el resultado en el libro.",
        "Los recambios se guardan durante diez años.",
        "Use guantes mientras la tapa esté abierta.",
    ),
)  # fmt: skip

CHINESE = Language(
    code="zh",
    title="{product} 使用手册",
    parts=("主阀", "进料泵", "传动带", "进气过滤器", "排风机", "液位传感器",
           "控制面板", "备用电池"),
    facts=(
        Fact("压力", "{product} 的{part}额定压力为 {value} 巴。",
             "{product} 的{part}能承受多大的压强?", 2, 90),
        Fact("保养", "{product} 的{part}每 {value} 个月更换一次。",
             "{product} 的{part}多久要换新?", 2, 60),
        Fact("温度", "超过 {value} 度时,{product} 的{part}自动停机。",
             "{product} 的{part}热到几度会关闭?", 35, 160),
    ),
    filler=(
        "开始之前请完整阅读本章。",
        "只有受过培训的人员才能进行操作。",
        "请保持设备干燥、无尘。",
        "每次检查之后都要在日志中记录。",
        "备件在停产后保存十年。",
        "打开盖板时请戴手套。",
    ),
    space="",
    latin=False,
)  # fmt: skip

JAPANESE = Language(
    code="ja",
    title="{product} 取扱説明書",
    parts=("主弁", "供給ポンプ", "駆動ベルト", "吸気フィルター", "排気ファン", "液面センサー",
           "操作盤", "予備電池"),
    facts=(
        Fact("圧力", "{product} の{part}の定格圧力は {value} バールです。",
             "{product} の{part}はどのくらいの圧に耐えますか?", 2, 90),
        Fact("保守", "{product} の{part}は {value} か月ごとに交換してください。",
             "{product} の{part}を取り替える間隔は?", 2, 60),
        Fact("温度", "{product} の{part}は {value} 度を超えると停止します。",
             "{product} の{part}が止まるのは何度からですか?", 35, 160),
    ),
    filler=(
        "作業を始める前にこの章をすべてお読みください。",
        "作業は訓練を受けた担当者だけが行えます。",
        "装置を乾いた、ほこりのない状態に保ってください。",
        "点検のたびに記録簿に記入します。",
        "交換部品は生産終了後十年間保管されます。",
        "カバーが開いている間は手袋を着用してください。",
    ),
    space="",
    latin=False,
)  # fmt: skip

LANGUAGES: Mapping[str, tuple[Language, int]] = {
    language.code: (language, share)
    for language, share in (
        (ENGLISH, 8), (GERMAN, 3), (FRENCH, 2), (SPANISH, 2), (CHINESE, 3), (JAPANESE, 2),
    )
}  # fmt: skip
"""Languages by code, and the share of each in twenty documents."""
