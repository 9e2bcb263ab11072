"""Names in the character sets of the field: (Specific Character Set, Patient's Name) as bytes."""

from __future__ import annotations

CHARACTER_SETS = {
    "ascii": (b"", b"Doe^John"),
    "latin 1": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "latin 2": (b"ISO_IR 101", "Dvořák^Jiří".encode("iso8859-2")),
    "cyrillic": (b"ISO_IR 144", "Иванов^Иван".encode("iso8859-5")),
    "greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7")),
    "arabic": (b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6")),
    "hebrew": (b"ISO_IR 138", "שרון^דבורה".encode("iso8859-8")),
    "thai": (b"ISO_IR 166", "สมชาย^ใจดี".encode("iso8859-11")),
    "utf-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode()),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030")),
    "gbk": (b"GBK", "Wang^XiaoDong=王^小东=".encode("gbk")),
    "japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "japanese 13": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "declared ascii, is latin 1": (b"", "Müller^Jörg".encode("latin-1")),
    "declared utf-8, is latin 1": (b"ISO_IR 192", "Müller^Jörg".encode("latin-1")),
    "unknown set": (b"ISO_IR 999", b"Some\xfe\xffbody"),
    "misspelt set": (b"ISO-IR 100", "Müller^Jörg".encode("latin-1")),
    "no caret": (b"ISO_IR 100", b"ProstateX-0000"),
    "long": (b"ISO_IR 100", b"A" * 70),
    "odd length": (b"ISO_IR 100", b"Odd"),
    "latin 3": (b"ISO_IR 109", "Ħamrun^Ġorġ".encode("iso8859-3")),
    "latin 4": (b"ISO_IR 110", "Bērziņš^Jānis".encode("iso8859-4")),
    "turkish": (b"ISO_IR 148", "Yılmaz^Çağrı".encode("iso8859-9")),
    "katakana": (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"),
    "chinese 2022": (b"\\ISO 2022 IR 58", b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab"),
    "latin 1 2022": (b"ISO 2022 IR 100\\ISO 2022 IR 144", "Müller^Jörg".encode("latin-1")),
    "declared japanese, is utf-8": (b"\\ISO 2022 IR 87", "山田^太郎".encode()),
    "declared utf-8, is gb18030": (b"ISO_IR 192", "王^小东".encode("gb18030")),
    "two sets without code extension": (b"ISO_IR 100\\ISO_IR 144", "Müller^Jörg".encode("latin-1")),
    "empty name": (b"ISO_IR 100", b""),
    "undeclared utf-8": (b"", "Wang^XiaoDong=王^小东=".encode()),
}

assert len(CHARACTER_SETS) >= 30
