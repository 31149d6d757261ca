"""Protocol buffers' bytes by hand: what the stand-ins of this folder need of them."""


def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag, value):
    value = value.encode() if isinstance(value, str) else value
    return number(tag << 3 | 2) + number(len(value)) + value


def fields(data):
    """(tag, value) of a message; numbers as int, the rest as bytes."""
    at, out = 0, []

    def take():
        nonlocal at
        shift = value = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = take()
        if key & 7 == 0:
            out.append((key >> 3, take()))
        else:
            length = take()
            out.append((key >> 3, data[at : at + length]))
            at += length
    return out
