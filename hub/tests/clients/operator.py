"""An operator on kopf: it answers ConfigMaps that ask something, and lets go of them when they go.

In: KUBECONFIG. Out: ConfigMaps `answer-NAME`, and annotations. Ends by itself once `done` is seen.
"""
import kopf
import kubernetes

kubernetes.config.load_kube_config()
core = kubernetes.client.CoreV1Api()


@kopf.on.startup()
def settings(settings: kopf.OperatorSettings, **_):
    settings.persistence.finalizer = "example.com/kopf"
    settings.posting.enabled = True


@kopf.on.create("", "v1", "configmaps", labels={"ask": kopf.PRESENT})
def asked(name, namespace, body, **_):
    answer = {"metadata": {"name": f"answer-{name}"}, "data": {"answer": body["data"]["question"].upper()}}
    kopf.append_owner_reference(answer, owner=body)
    core.create_namespaced_config_map(namespace, answer)
    return {"answered": True}


@kopf.on.update("", "v1", "configmaps", labels={"ask": kopf.PRESENT}, field="data.question")
def asked_again(name, namespace, new, **_):
    core.patch_namespaced_config_map(f"answer-{name}", namespace, {"data": {"answer": new.upper()}})


@kopf.on.delete("", "v1", "configmaps", labels={"ask": kopf.PRESENT})
def forgotten(name, namespace, **_):
    core.delete_namespaced_config_map(f"answer-{name}", namespace)
