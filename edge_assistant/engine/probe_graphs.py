"""The graphs by which a provider proves that it attends: one GroupQueryAttention each, a head of 16, 8 positions.

They are ONNX models, written with onnx, which a board does not have: compressed, and as text. Inputs are query
[1, 1, 48] (a query, a key and a value), past_key and past_value [1, 1, 8, 16], seqlens_k and total; the output is
`attended`. A step of an int8 cache is worth 1/127.
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

_PACKED: Final = {
    ("float32", "float32"): (
        "eNp1kL9qwzAQxq3UDso1oarSf6TQIbQUMpTM2Zolc1YvQo6vNNiWHEkO5G36KN37UrVNQmxaIw6k777j9P0oLH4u4JtAsCvQHMArD82ldSLB"
        "A0B928u0QBhY3KWorEggcNrJlFPpHKoYY36ZG7So6iE+Oj3quclE6RjFyugiX1cr3qsht9VKzKfjf+QZg4EqMvGJMrYP5Iv0ZmMYJnvRFhej"
        "jc7esu3GaKs/HA9yoyMMH49BOAdGCR9Cj5JjzcPpORq/g5uyzxp9WhYLn5uhO133DRwcgNI+9ytDeHWC0we/FL3oCc6Y/v6JRS/QgtexMHqF"
        "NtYu49IHj90ur6GNh5FfgVpyUw=="
    ),
    ("float32", "int8"): (
        "eNqlUl1PwjAUpWMj5QKxFj8QEx6IxoQHwzPxQTBEYwzx420vTbfVsDDWsXUYfod/gP/gH3QbM4CKL+bmpu05p/fe9BRD792ADw2MWSzCBRSS"
        "wAGPFJuIBUC2m3MvFlCOxMwTfsQmYCipuJdpV2FENvdEvlDMlRK+IxxaCUIRCT8rRmtfh6xes+lLR7DbUMbBU9q6n15SrvRZt13/Be4QKPvx"
        "lI0Fd6IGWiKtU4fqZM6+gSdAE9Dm9lgwy1XszXXUuIFTqpXo2SzmyQxqEYh25XH4zG7u+qPR8GGJiik//4Pv1Ww5vZy6digj+aqoEYTSEp0X"
        "jLIgBA1WL3B/rWvo6j9pnuaGUAoEI1oFDaM8u2Z7bRE9ggNcpGSDx0kS82zTvJ2q4w1bKQDGJaqnAnMvN5mWQE/AgtWCta0/ZyLWOWyZvaOh"
        "dQHb32CXcKBDgRwO9mH7zQn6BJZUmcU="
    ),
    ("float16", "float16"): (
        "eNp1kM1Kw0AUhZOalOmxxXHqHxVcFEXoQrruzm5cu81mSJorliQzaWZS6Nv4KO59KZPQ0gQtw4WZc8/lzvkYFj9n+Hbhb0oqdnCqw/LQWJnQ"
        "Dmhu2zAtCQNDm5SUkQl8q22YChZaSyqmWJznBRlSzZAYHR7N3GSidEzyrdBl/l6veK2H7ForOZ+O/5FnHANVZvKTwtjcuV9ubzbGMNnKrrgY"
        "rXT2kq1XhTb6wwo/L3REwf0+iBDgDGKIHnP3NQ+mx2jiBldVn7f6rCoePLZDn3TdtnAIgLG+8GpDcHGA04dXiU70gCOmv3/i0RM68E4sjJ7R"
        "xXrKuPTg8OvlJbp4uPsLoslyiQ=="
    ),
    ("float16", "int8"): (
        "eNqlUl1PwjAUpWMj5QKxFj8QEx6IxoQHwzPxQTBEYwzx420vTbfVsDDWsXUYfod/gP/gH3QbM4CKL+bmpu05p/fe9BRD792ADw2MWSzCBRSS"
        "wAGPFJuIBUC2m3MvFlCOxMwTfsQmYCipuJdpV2FENvdEvlDMlRK+IxxaCUIRCT8rRmtfh6xes+lLR7DbUMbBU9q6n15SrvRZt13/Be4QKPvx"
        "lI0Fd6IGWiKtU4fqZM6+gSdAE9Dm9lgwy1XszXXUuIFTqpXo2SzmyQxqEYh25XH4zG7u+qPR8GGJiik//4Pv1Ww5vZy6digj+aqoEYTSEp0X"
        "jLIgBA1WL3B/rWvo6j9pnuaGUAoEA62ChlGeXbO9togewQEuUrLB4ySJebZp3k7V8YatFADjEtVTgbmXm0xLoCdgwWrB2tafMxHrHLbM3tHQ"
        "uoDtb7BLONChQA4H+7D95gR9AqP4mdc="
    ),
}
PROBE_GRAPHS: Final = {types: zlib.decompress(base64.b64decode(text)) for types, text in _PACKED.items()}
"""By the type that a graph computes in and that of its cache."""
