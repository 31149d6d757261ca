//! The real kubectl against the real server: what people type, and what they read.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:1", ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a: "1", b: "2"}
"#;

fn yaml(c: &Cluster, what: &[&str]) -> Value {
    let mut arguments = vec!["get", "-o", "json"];
    arguments.extend(what);
    serde_json::from_str(&c.kubectl(&arguments).ok()).unwrap()
}

#[test]
fn apply_on_the_clients_side() {
    let c = Cluster::start();
    let apply = |text: &str| c.kubectl_in(&["apply", "-f", "-"], text);
    assert_eq!(apply(WEB).ok(), "deployment.apps/web created\nservice/web created\nconfigmap/conf created\n");
    assert_eq!(
        apply(WEB).ok(),
        "deployment.apps/web unchanged\nservice/web unchanged\nconfigmap/conf unchanged\n"
    );
    let changed = WEB.replace("web:1", "web:2").replace(", b: \"2\"", "");
    assert_eq!(
        apply(&changed).ok(),
        "deployment.apps/web configured\nservice/web unchanged\nconfigmap/conf configured\n"
    );
    assert_eq!(yaml(&c, &["cm", "conf"])["data"], json!({"a": "1"}));
    assert_eq!(yaml(&c, &["deploy", "web"])["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    assert_eq!(c.kubectl_in(&["diff", "-f", "-"], &changed).ok(), "");
    let words = apply(&WEB.replace("replicas: 3", "replica: 3")).fails();
    assert!(words.contains("unknown field \"spec.replica\""), "{words}");
    let words = apply(&WEB.replace("replicas: 3", "replicas: -1")).fails();
    assert!(
        words.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{words}"
    );
    assert!(c.kubectl_in(&["delete", "-f", "-"], WEB).ok().contains("configmap \"conf\" deleted"));
}

#[test]
fn apply_on_the_servers_side() {
    let c = Cluster::start();
    let apply = |text: &str, more: &[&str]| {
        let mut arguments = vec!["apply", "--server-side", "-f", "-"];
        arguments.extend(more);
        c.kubectl_in(&arguments, text)
    };
    assert!(apply(WEB, &[]).ok().contains("deployment.apps/web serverside-applied"));
    let before = yaml(&c, &["deploy", "web"]);
    apply(WEB, &[]).ok();
    assert_eq!(
        yaml(&c, &["deploy", "web"])["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
    c.kubectl(&["set", "image", "deploy/web", "web=other:1"]).ok();
    let words = apply(WEB, &[]).fails();
    assert!(words.contains("Apply failed with 1 conflict: conflict with \"kubectl-set\""), "{words}");
    apply(WEB, &["--force-conflicts"]).ok();
    assert_eq!(yaml(&c, &["deploy", "web"])["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
    // Fields that are no longer applied go; those of others stay.
    c.kubectl(&["label", "cm", "conf", "mine=yes"]).ok();
    apply(&WEB.replace(", b: \"2\"", ""), &[]).ok();
    let conf = yaml(&c, &["cm", "conf"]);
    assert_eq!((&conf["data"], &conf["metadata"]["labels"]["mine"]), (&json!({"a": "1"}), &json!("yes")));
    let managed = yaml(&c, &["cm", "conf", "--show-managed-fields"])["metadata"]["managedFields"].clone();
    let names: Vec<_> = managed.as_array().unwrap().iter().map(|m| m["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["kubectl", "kubectl-label"]);
}

#[test]
fn create_of_every_sort() {
    let c = Cluster::start();
    for (command, expect) in [
        ("create namespace n1", "namespace/n1 created"),
        ("create configmap c1 --from-literal=a=b", "configmap/c1 created"),
        ("create secret generic s1 --from-literal=p=q", "secret/s1 created"),
        ("create deployment d1 --image=nginx --replicas=2 --port=80", "deployment.apps/d1 created"),
        ("create job j1 --image=busybox -- true", "job.batch/j1 created"),
        ("create cronjob k1 --image=busybox --schedule=@daily -- true", "cronjob.batch/k1 created"),
        ("create serviceaccount a1", "serviceaccount/a1 created"),
        ("create role r1 --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r1 created"),
        (
            "create rolebinding b1 --role=r1 --serviceaccount=default:a1",
            "rolebinding.rbac.authorization.k8s.io/b1 created",
        ),
        (
            "create clusterrole cr1 --verb=get --resource=nodes",
            "clusterrole.rbac.authorization.k8s.io/cr1 created",
        ),
        (
            "create clusterrolebinding cb1 --clusterrole=cr1 --user=u",
            "clusterrolebinding.rbac.authorization.k8s.io/cb1 created",
        ),
        ("create service clusterip v1 --tcp=80", "service/v1 created"),
        ("create service nodeport v2 --tcp=80", "service/v2 created"),
        (
            "create poddisruptionbudget p1 --selector=a=b --min-available=50%",
            "poddisruptionbudget.policy/p1 created",
        ),
        ("create priorityclass pc1 --value=10", "priorityclass.scheduling.k8s.io/pc1 created"),
        ("create ingress i1 --rule=foo/bar=svc:80", "ingress.networking.k8s.io/i1 created"),
        ("run r1 --image=nginx", "pod/r1 created"),
        ("expose deployment d1 --port=80", "service/d1 exposed"),
        ("autoscale deployment d1 --max=3", "horizontalpodautoscaler.autoscaling/d1 autoscaled"),
        ("create quota q1 --hard=pods=9", "resourcequota/q1 created"),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        assert_eq!(c.kubectl(&arguments).ok().trim(), expect);
    }
    assert_eq!(yaml(&c, &["secret", "s1"])["data"]["p"], "cQ==");
    let again = c.kubectl(&["create", "configmap", "c1"]).fails();
    assert!(again.contains("configmaps \"c1\" already exists"), "{again}");
    let lost = c.kubectl(&["create", "configmap", "c1", "-n", "no"]).fails();
    assert!(lost.contains("namespaces \"no\" not found"), "{lost}");
    assert_eq!(c.kubectl(&["create", "token", "a1"]).ok().matches('.').count(), 2);
}

#[test]
fn changing_one_thing() {
    let c = Cluster::start();
    c.kubectl_in(&["apply", "-f", "-"], WEB).ok();
    for (command, expect) in [
        ("label deploy web tier=front", "deployment.apps/web labeled"),
        ("annotate deploy web note=x", "deployment.apps/web annotated"),
        ("scale deploy web --replicas=5", "deployment.apps/web scaled"),
        ("set image deploy/web web=web:9", "deployment.apps/web image updated"),
        ("set env deploy/web A=B", "deployment.apps/web env updated"),
        ("set resources deploy/web --limits=cpu=1", "deployment.apps/web resource requirements updated"),
        ("rollout restart deploy/web", "deployment.apps/web restarted"),
        ("rollout pause deploy/web", "deployment.apps/web paused"),
        ("rollout resume deploy/web", "deployment.apps/web resumed"),
        ("patch cm conf --type=merge -p {\"data\":{\"c\":\"3\"}}", "configmap/conf patched"),
        ("patch cm conf --type=json -p [{\"op\":\"remove\",\"path\":\"/data/b\"}]", "configmap/conf patched"),
        ("patch cm conf -p {\"metadata\":{\"labels\":{\"x\":\"y\"}}}", "configmap/conf patched"),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        assert_eq!(c.kubectl(&arguments).ok().trim(), expect);
    }
    let web = yaml(&c, &["deploy", "web"]);
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["labels"]["tier"]), (&json!(5), &json!("front")));
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["env"][0]["name"]), (&json!("web:9"), &json!("A")));
    assert_eq!(yaml(&c, &["cm", "conf"])["data"], json!({"a": "1", "c": "3"}));
    assert!(
        c.kubectl(&["scale", "deploy", "web", "--replicas=1", "--current-replicas=9"])
            .fails()
            .contains("Expected replicas")
    );

    // kubectl edit, with an editor that is a command.
    let edit = std::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&c.kubeconfig)
        .arg("--cache-dir")
        .arg(c.dir.path().join("cache"))
        .args(["edit", "cm", "conf"])
        .env("KUBE_EDITOR", "sed -i s/\\ a:.*/\\ a:\\ edited/")
        .output()
        .unwrap();
    assert!(edit.status.success(), "{edit:?}");
    assert_eq!(yaml(&c, &["cm", "conf"])["data"]["a"], "edited");
    let replaced =
        c.kubectl_in(&["replace", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\n");
    assert_eq!(replaced.ok().trim(), "configmap/conf replaced");
    assert_eq!(yaml(&c, &["cm", "conf"]).get("data"), None);
}

#[test]
fn looking_around() {
    let c = Cluster::start();
    c.kubectl_in(&["apply", "-f", "-"], WEB).ok();
    let table = c.kubectl(&["get", "deploy,svc", "-o", "wide"]).ok();
    for word in
        ["READY", "UP-TO-DATE", "CONTAINERS", "deployment.apps/web", "service/kubernetes", "10.96.0.1"]
    {
        assert!(table.contains(word), "{table}");
    }
    for (command, expect) in [
        ("get deploy web -o jsonpath={.spec.replicas}", "3"),
        ("get deploy -o name", "deployment.apps/web\n"),
        ("get cm -l a=b", ""),
        ("get cm --field-selector=metadata.name=conf -o name", "configmap/conf\n"),
        ("get ns default -o custom-columns=N:.metadata.name --no-headers", "default\n"),
        ("auth can-i create pods", "yes\n"),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        assert_eq!(c.kubectl(&arguments).ok(), expect, "{command}");
    }
    for (command, words) in [
        ("describe deploy web", "RollingUpdateStrategy:  25% max unavailable, 25% max surge"),
        ("describe svc kubernetes", "Endpoints:                192.0.2.1:"),
        ("describe ns default", "No LimitRange resource."),
        ("api-resources", "deployments                         deploy       apps/v1"),
        ("api-versions", "rbac.authorization.k8s.io/v1"),
        ("explain pod.spec.containers.image", "FIELD: image <string>"),
        ("explain deployment.spec.strategy --recursive", "rollingUpdate"),
        ("cluster-info", "Kubernetes control plane"),
        ("auth whoami", "kubernetes-admin"),
        ("auth can-i --list", "*.*"),
        ("version", "Server Version: v1.36."),
        ("get --raw /metrics", "apiserver_request_total{verb=\"LIST\""),
        ("rollout history deploy/web", "deployment.apps/web"),
        ("events", "No events found in default namespace."),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = c.kubectl(&arguments);
        let text = format!("{}{}", output.out, output.err);
        assert!(output.good && text.contains(words), "{command}: {text}");
    }
    let words = c.kubectl(&["get", "nothings"]).fails();
    assert!(words.contains("the server doesn't have a resource type \"nothings\""), "{words}");
    let words = c.kubectl(&["get", "cm", "nothing"]).fails();
    assert_eq!(words.trim(), "Error from server (NotFound): configmaps \"nothing\" not found");
}

#[test]
fn rights_of_others() {
    let c = Cluster::start();
    let jane = c.kubeconfig_of("jane", &["team"]);
    let as_jane = |arguments: &[&str]| c.kubectl_as(&jane, arguments, "");
    let words = as_jane(&["get", "pods"]).fails();
    assert!(
        words.contains(
            "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        ),
        "{words}"
    );
    c.kubectl(&["create", "role", "reader", "--verb=get,list,watch", "--resource=pods,configmaps"]).ok();
    c.kubectl(&["create", "rolebinding", "readers", "--role=reader", "--group=team"]).ok();
    let authorizer = &c.api.authorizer;
    let revision = c.api.store.revision();
    while authorizer.view().read().unwrap().revision() < revision {
        std::thread::yield_now();
    }
    assert_eq!(as_jane(&["get", "cm", "-o", "name"]).ok(), "");
    assert_eq!(as_jane(&["auth", "can-i", "get", "pods"]).ok(), "yes\n");
    assert!(as_jane(&["auth", "can-i", "delete", "pods"]).out.contains("no"));
    for arguments in [
        &["get", "cm", "-n", "kube-system"][..],
        &["get", "cm", "-A"],
        &["create", "cm", "x"],
        &["get", "nodes"],
        &["get", "pods", "--as=bob"],
        &["create", "role", "r", "--verb=*", "--resource=*"],
    ] {
        assert!(as_jane(arguments).fails().contains("orbidden"), "{arguments:?}");
    }
    // Who may write roles still cannot give what he does not have.
    c.kubectl(&["create", "role", "author", "--verb=get,create,update", "--resource=roles,rolebindings"])
        .ok();
    c.kubectl(&["create", "rolebinding", "authors", "--role=author", "--user=jane"]).ok();
    let revision = c.api.store.revision();
    while authorizer.view().read().unwrap().revision() < revision {
        std::thread::yield_now();
    }
    let words = as_jane(&["create", "role", "more", "--verb=get", "--resource=secrets"]).fails();
    assert!(words.contains("is attempting to grant RBAC permissions not currently held"), "{words}");
    as_jane(&["create", "role", "same", "--verb=get", "--resource=pods"]).ok();
    assert!(
        as_jane(&["create", "rolebinding", "b", "--clusterrole=cluster-admin", "--user=jane"])
            .fails()
            .contains("not currently held")
    );
    // Impersonation by the operator.
    assert!(c.kubectl(&["get", "secrets", "--as=jane", "--as-group=team"]).fails().contains("User \"jane\""));
    assert!(
        c.kubectl(&["auth", "whoami", "--as=system:serviceaccount:a:b"])
            .ok()
            .contains("system:serviceaccounts:a")
    );
}

#[test]
fn nodes_are_cordoned_drained_and_tainted() {
    let c = Cluster::start();
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    c.kubectl_in(&["apply", "-f", "-"], node).ok();
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{a: b}}}}\n\
             spec: {{nodeName: n1, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: i}}]}}\n"
        )
    };
    c.kubectl_in(&["create", "-f", "-"], &pod("p1")).ok();
    assert_eq!(c.kubectl(&["cordon", "n1"]).ok().trim(), "node/n1 cordoned");
    assert!(c.kubectl(&["get", "nodes"]).ok().contains("SchedulingDisabled"));
    assert_eq!(c.kubectl(&["uncordon", "n1"]).ok().trim(), "node/n1 uncordoned");
    assert_eq!(c.kubectl(&["taint", "nodes", "n1", "k=v:NoSchedule"]).ok().trim(), "node/n1 tainted");
    assert_eq!(c.kubectl(&["taint", "nodes", "n1", "k-"]).ok().trim(), "node/n1 untainted");
    assert!(c.kubectl(&["describe", "node", "n1"]).ok().contains("p1"));
    // A budget without room keeps running pods.
    c.kubectl(&["create", "pdb", "b", "--selector=a=b", "--min-available=1"]).ok();
    c.kubectl(&["patch", "pod", "p1", "--subresource=status", "-p", "{\"status\":{\"phase\":\"Running\"}}"])
        .ok();
    let words = c.kubectl(&["drain", "n1", "--force", "--timeout=8s"]).fails();
    assert!(words.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{words}");
    c.kubectl(&["delete", "pdb", "b"]).ok();
    assert!(c.kubectl(&["drain", "n1", "--force"]).ok().contains("node/n1 drained"));
    assert_eq!(c.kubectl(&["get", "pods", "-o", "name"]).ok(), "");
}

#[test]
fn waiting_and_watching() {
    let c = Cluster::start();
    c.kubectl_in(&["apply", "-f", "-"], WEB).ok();
    let ready = json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}}).to_string();
    std::thread::scope(|scope| {
        let wait =
            scope.spawn(|| c.kubectl(&["wait", "deploy/web", "--for=condition=Available", "--timeout=120s"]));
        c.kubectl(&["patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", &ready]).ok();
        assert_eq!(wait.join().unwrap().ok().trim(), "deployment.apps/web condition met");
        let gone = scope.spawn(|| c.kubectl(&["wait", "cm/conf", "--for=delete", "--timeout=120s"]));
        c.kubectl(&["delete", "cm", "conf"]).ok();
        // It may be gone before the other kubectl looks.
        let _ = gone.join().unwrap();
    });
}
