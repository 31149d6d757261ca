"""The official Python client against the API: typed calls, patches, watches that resume, apply, leader election.

In: KUBECONFIG. Out: exit code 0, or the assertion that failed. Never: anything outside of the namespace `default`.
"""
import os
import threading
import time
import uuid

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

config.load_kube_config()
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
NS = "default"


def typed_calls():
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="typed", labels={"t": "1"}), data={"a": "1"})
    made = core.create_namespaced_config_map(NS, body)
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    made.data["a"] = "2"
    replaced = core.replace_namespaced_config_map("typed", NS, made)
    assert replaced.data == {"a": "2"}
    made.data["a"] = "3"
    try:
        core.replace_namespaced_config_map("typed", NS, made)
        raise AssertionError("an old resourceVersion was accepted")
    except ApiException as error:
        assert error.status == 409 and "the object has been modified" in error.body, error.body
    patched = core.patch_namespaced_config_map("typed", NS, {"data": {"b": "x", "a": None}})
    assert patched.data == {"b": "x"}
    page = core.list_namespaced_config_map(NS, limit=1)
    assert len(page.items) == 1
    status = core.delete_namespaced_config_map("typed", NS)
    assert (status["status"] if isinstance(status, dict) else status.status) == "Success", status
    deployment = client.V1Deployment(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1DeploymentSpec(
            selector=client.V1LabelSelector(match_labels={"a": "b"}),
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(labels={"a": "b"}),
                spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]),
            ),
        ),
    )
    assert apps.create_namespaced_deployment(NS, deployment).spec.replicas == 1
    scale = apps.read_namespaced_deployment_scale("web", NS)
    scale.spec.replicas = 3
    # A controller may write meanwhile: this is about the number, not the version.
    scale.metadata.resource_version = None
    assert apps.replace_namespaced_deployment_scale("web", NS, scale).spec.replicas == 3
    try:
        batch.create_namespaced_job(NS, {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": []}}}})
        raise AssertionError("a Job without containers was accepted")
    except ApiException as error:
        assert error.status == 422 and "spec.template.spec.containers: Required value" in error.body, error.body


def watches_resume():
    """An informer: list, watch from there, miss nothing across a broken connection."""
    seen = []
    listed = core.list_namespaced_secret(NS)
    version = listed.metadata.resource_version
    for name in ["s1", "s2"]:
        core.create_namespaced_secret(NS, {"metadata": {"name": name}})
    for event in watch.Watch().stream(core.list_namespaced_secret, NS, resource_version=version, timeout_seconds=30):
        seen.append((event["type"], event["object"].metadata.name))
        version = event["object"].metadata.resource_version
        if len(seen) == 2:
            break
    core.patch_namespaced_secret("s1", NS, {"metadata": {"labels": {"x": "y"}}})
    core.delete_namespaced_secret("s2", NS)
    for event in watch.Watch().stream(core.list_namespaced_secret, NS, resource_version=version, timeout_seconds=30):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 4:
            break
    assert seen == [("ADDED", "s1"), ("ADDED", "s2"), ("MODIFIED", "s1"), ("DELETED", "s2")], seen


def dynamic_apply():
    """Server-side apply with the dynamic client, which finds everything by discovery."""
    api = dynamic.DynamicClient(client.ApiClient())
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    maps.server_side_apply(body=body, name="applied", namespace=NS, field_manager="one")
    body["data"]["a"] = "2"
    try:
        maps.server_side_apply(body=body, name="applied", namespace=NS, field_manager="two")
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with \\"one\\": .data.a' in str(error.body), error.body
    maps.server_side_apply(body=body, name="applied", namespace=NS, field_manager="two", force_conflicts=True)
    assert maps.get(name="applied", namespace=NS).data.a == "2"


def leader_election():
    """Two candidates, one leader; when it goes, the other takes over."""
    led, stop = [], threading.Event()

    def run(name):
        def leading():
            led.append(name)
            stop.wait()
        lock = LeaseLock("leader", NS, name)
        settings = electionconfig.Config(lock, lease_duration=4, renew_deadline=3, retry_period=1,
                                         onstarted_leading=leading, onstopped_leading=lambda: None)
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    names = [f"candidate-{uuid.uuid4()}" for _ in range(2)]
    for name in names:
        run(name)
    ends = time.monotonic() + 60
    while not led and time.monotonic() < ends:
        time.sleep(0.1)
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", NS)
    assert led and lease.spec.holder_identity == led[0], (led, lease)
    stop.set()


typed_calls()
watches_resume()
dynamic_apply()
leader_election()
print("python client: all well", flush=True)
# Candidates are at work still: an interpreter that takes itself apart under them may die of it.
os._exit(0)
