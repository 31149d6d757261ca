"""Asks a node which pod has which devices, with gRPC of another make than the agent's.

Usage: lister.py SOCKET List | GetAllocatableResources | Get POD NAMESPACE
One line for each container: NAMESPACE/POD/CONTAINER, then RESOURCE=ID,ID and CLAIM:DRIVER/POOL/DEVICE; for what there is to be had
RESOURCE=ID,ID. An error is its words.
"""
import sys

import grpc


def fields(data):
    """(tag, value) of a message that has only texts and messages."""
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
        key, length = take(), take()
        assert key & 7 == 2, key
        out.append((key >> 3, data[at : at + length]))
        at += length
    return out


def texts(data, tag):
    return [value.decode() for at, value in fields(data) if at == tag]


def inner(data, tag):
    return [value for at, value in fields(data) if at == tag]


def held(devices):
    return texts(devices, 1)[0] + "=" + ",".join(texts(devices, 2))


def claims(resource):
    name = texts(resource, 2)[0]
    return [name + ":" + "/".join(texts(one, tag)[0] for tag in (2, 3, 4)) for one in inner(resource, 4)]


def show(pod):
    for container in inner(pod, 3):
        words = ["/".join([texts(pod, 2)[0], texts(pod, 1)[0], texts(container, 1)[0]])]
        words += [held(one) for one in inner(container, 2)]
        words += [claim for one in inner(container, 5) for claim in claims(one)]
        print(*words)


def put(tag, text):
    return bytes([tag << 3 | 2, len(text)]) + text.encode()


socket, method, *names = sys.argv[1:]
request = b"".join(put(tag, name) for tag, name in enumerate(names, 1))
with grpc.insecure_channel("unix://" + socket) as channel:
    call = channel.unary_unary("/v1.PodResourcesLister/" + method)
    try:
        answer = call(request, timeout=30)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
        sys.exit(0)
for message in inner(answer, 1):
    print(held(message)) if method == "GetAllocatableResources" else show(message)
