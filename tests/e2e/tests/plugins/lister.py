"""Asks a node which pod has which devices, with gRPC of another make than the agent's.

Usage: lister.py SOCKET List | GetAllocatableResources | Get POD NAMESPACE
One line for each container: NAMESPACE/POD/CONTAINER, then RESOURCE=ID,ID and CLAIM:DRIVER/POOL/DEVICE; for what there is to be had
RESOURCE=ID,ID. An error is its words.
"""
import sys

import grpc

from wire import field, fields


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


socket, method, *names = sys.argv[1:]
request = b"".join(field(tag, name) for tag, name in enumerate(names, 1))
with grpc.insecure_channel("unix://" + socket) as channel:
    call = channel.unary_unary("/v1.PodResourcesLister/" + method)
    try:
        answer = call(request, timeout=30)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
        sys.exit(0)
for message in inner(answer, 1):
    print(held(message)) if method == "GetAllocatableResources" else show(message)
