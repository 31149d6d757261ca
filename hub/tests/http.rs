//! The API over plain HTTP: words and codes of failures, bounds, forms of answers, lists, patches, deletes.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"n": name}}, "data": {"a": "1"}})
}

#[test]
fn failures_speak_kubernetes() {
    let c = Cluster::start();
    let post =
        |path: &str, form: &str, body: &str| c.raw("POST", path, &[("Content-Type", form)], body.as_bytes());
    let json_form = "application/json";
    let deep = format!("{{\"data\":{}1{}}}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let big = "a".repeat(4 * 1024 * 1024);
    for (path, form, body, code, words) in [
        (MAPS, json_form, "{", 400, "the object provided is unrecognized (must be of type ConfigMap)"),
        (MAPS, json_form, "", 400, "(<empty>)"),
        (MAPS, json_form, "[]", 400, "must be of type ConfigMap"),
        (MAPS, json_form, "null", 400, "must be of type ConfigMap"),
        (MAPS, json_form, deep.as_str(), 400, "exceeded max depth"),
        (MAPS, json_form, big.as_str(), 413, "Request entity is too large: limit is 3145728"),
        (MAPS, "text/plain", "x", 415, "the body of the request was in an unknown format"),
        (MAPS, json_form, r#"{"kind":"Pod","apiVersion":"v1"}"#, 400, "cannot be handled as a ConfigMap"),
        (MAPS, json_form, r#"{"apiVersion":"v2"}"#, 400, "does not match the expected API version (v1)"),
        (
            MAPS,
            json_form,
            r#"{"metadata":{"name":"x","namespace":"y"}}"#,
            400,
            "does not match the namespace sent",
        ),
        (
            MAPS,
            json_form,
            r#"{"metadata":{"name":"x","resourceVersion":"1"}}"#,
            500,
            "resourceVersion should not be set",
        ),
        (MAPS, json_form, r#"{"metadata":{"name":"A_"}}"#, 422, "ConfigMap \"A_\" is invalid: metadata.name"),
        (MAPS, json_form, r#"{"metadata":{"name":"x"},"data":5}"#, 400, "cannot unmarshal number"),
        (
            "/api/v1/namespaces/no/configmaps",
            json_form,
            r#"{"metadata":{"name":"x"}}"#,
            404,
            "namespaces \"no\" not found",
        ),
        ("/api/v1/configmaps", json_form, "{}", 405, "the server does not allow this method"),
        (
            "/api/v1/namespaces/default/nothings",
            json_form,
            "{}",
            404,
            "the server could not find the requested resource",
        ),
        ("/nowhere", json_form, "{}", 404, "the server could not find the requested resource"),
    ] {
        let (got, bytes) = post(path, form, body);
        let status: Value = serde_json::from_slice(&bytes).unwrap();
        let shown = &body[..body.len().min(60)];
        assert_eq!((got, &status["kind"]), (code, &json!("Status")), "{path} {shown}: {status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{path} {shown}: {status}");
        assert_eq!(status["code"], code);
    }
}

#[test]
fn strict_warn_ignore() {
    let c = Cluster::start();
    let body = json!({"metadata": {"name": "a"}, "dataa": {}});
    let (code, status) = c.json("POST", &format!("{MAPS}?fieldValidation=Strict"), body.clone());
    assert_eq!(
        (code, status["message"].as_str().unwrap()),
        (
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
             unknown field \"dataa\""
        )
    );
    let (code, _) = c.json("POST", &format!("{MAPS}?fieldValidation=Never"), body.clone());
    assert_eq!(code, 422);
    let (code, object) = c.json("POST", &format!("{MAPS}?fieldValidation=Ignore"), body);
    assert_eq!((code, object.get("dataa")), (201, None));
}

#[test]
fn rights() {
    let c = Cluster::start();
    let curl = |path: &str, headers: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "--cacert"]).arg(c.dir.path().join("pki/ca.crt"));
        headers.iter().for_each(|h| _ = command.args(["-H", h]));
        let out = command.arg(format!("{}{path}", c.url)).output().unwrap().stdout;
        let text = String::from_utf8(out).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse::<u16>().unwrap(), body.to_owned())
    };
    for path in ["/version", "/readyz", "/livez", "/healthz", "/readyz/ping"] {
        assert_eq!(curl(path, &[]).0, 200, "{path}");
    }
    let closed = ["/api", "/metrics", "/api/v1/secrets", "/limpet/v1/tokens", "/openapi/v2", "/openid/v1/jwks"];
    for path in closed.into_iter().chain(["/.well-known/openid-configuration"]) {
        let (code, body) = curl(path, &[]);
        assert_eq!(code, 403, "{path}");
        assert!(body.contains(r#"User \"system:anonymous\" cannot "#), "{body}");
    }
    for header in [
        "Authorization: Bearer x",
        "Authorization: Bearer a.b.c",
        "Authorization: Basic eDp5",
        "Authorization: x",
    ] {
        assert_eq!(curl("/api", &[header]).0, 401, "{header}");
    }
    // Headers of a nobody do not make somebody.
    assert_eq!(curl("/api/v1/secrets", &["Impersonate-User: a", "Impersonate-Group: system:masters"]).0, 403);
}

#[test]
fn service_account_tokens() {
    let c = Cluster::start();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    c.json("POST", accounts, json!({"metadata": {"name": "bob"}}));
    let ask =
        |name: &str, spec: Value| c.json("POST", &format!("{accounts}/{name}/token"), json!({"spec": spec}));
    let (code, made) = ask("bob", json!({}));
    assert_eq!(code, 201);
    let review = |token: &Value, audiences: Value| {
        let spec = json!({"token": token, "audiences": audiences});
        c.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": spec})).1["status"]
            .clone()
    };
    let token = made["status"]["token"].clone();
    let mut keys = std::process::Command::new("curl");
    keys.args(["-sS", "-o", "/dev/null", "-w", "%{content_type}", "--cacert"]).arg(c.dir.path().join("pki/ca.crt"));
    keys.arg("-H").arg(format!("Authorization: Bearer {}", token.as_str().unwrap()));
    let keys = keys.arg(format!("{}/openid/v1/jwks", c.url)).output().unwrap().stdout;
    assert_eq!(String::from_utf8(keys).unwrap(), "application/jwk-set+json");
    let status = review(&token, json!([]));
    assert_eq!(
        (&status["authenticated"], &status["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:bob"))
    );
    assert_eq!(
        status["user"]["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    assert_eq!(review(&token, json!(["other"]))["authenticated"], false);
    // Bound to a pod: gone with it.
    assert_eq!(
        ask("bob", json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}})).0,
        404
    );
    let spec = json!({"serviceAccountName": "bob", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    assert_eq!(c.json("POST", "/api/v1/namespaces/default/pods", pod).0, 201);
    let to_pod = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    let bound = ask("bob", to_pod).1["status"]["token"].clone();
    let status = review(&bound, json!([]));
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(
        ask("default", json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}})).0,
        400
    );
    c.raw("DELETE", "/api/v1/namespaces/default/pods/p", &[], b"");
    assert_eq!(review(&bound, json!([]))["authenticated"], false);
    // An account made anew does not inherit tokens.
    c.raw("DELETE", &format!("{accounts}/bob"), &[], b"");
    c.json("POST", accounts, json!({"metadata": {"name": "bob"}}));
    assert_eq!(review(&token, json!([]))["authenticated"], false);
    for (spec, code) in
        [(json!({"expirationSeconds": 1}), 422), (json!({"expirationSeconds": 1_000_000_000}), 422)]
    {
        assert_eq!(ask("bob", spec).0, code);
    }
}

#[test]
fn lists_in_pages_and_forms() {
    let c = Cluster::start();
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(c.json("POST", MAPS, map(name)).0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().into())
            .collect()
    };
    let (_, first) = c.get(&format!("{MAPS}?limit=2"));
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(3))
    );
    c.json("POST", MAPS, map("bb"));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = c.get(&format!("{MAPS}?limit=2&continue={token}"));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    // "bb" came after the first page.
    assert_eq!(names(&second), ["c", "d"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, last) = c.get(&format!("{MAPS}?limit=9&continue={token}"));
    assert_eq!((names(&last), last["metadata"].get("continue")), (vec!["e".into()], None));

    let (_, some) = c.get(&format!("{MAPS}?labelSelector=n%20in%20(a,e)&limit=1"));
    assert_eq!((names(&some), some["metadata"].get("remainingItemCount")), (vec!["a".into()], None));
    let token = some["metadata"]["continue"].as_str().unwrap();
    assert_eq!(
        names(&c.get(&format!("{MAPS}?labelSelector=n%20in%20(a,e)&limit=1&continue={token}")).1),
        ["e"]
    );
    assert_eq!(names(&c.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dc")).1), ["c"]);
    for (query, code) in [
        ("fieldSelector=spec.x%3D1", 400),
        ("labelSelector=a%20in%20(", 400),
        ("continue=x", 400),
        ("resourceVersion=999999", 504),
        ("resourceVersionMatch=Exact", 422),
        ("limit=x", 400),
    ] {
        assert_eq!(c.get(&format!("{MAPS}?{query}")).0, code, "{query}");
    }
    let form = |accept: &str, path: &str| {
        let (code, bytes) = c.raw("GET", path, &[("Accept", accept)], b"");
        (code, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let table = form("application/json;as=Table;v=v1;g=meta.k8s.io", MAPS).1;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = form("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", MAPS).1;
    assert_eq!(
        (&partial["kind"], partial["items"][0].get("data")),
        (&json!("PartialObjectMetadataList"), None)
    );
    assert_eq!(form("image/png", MAPS).0, 406);
    assert_eq!(form("application/vnd.kubernetes.protobuf;q=0.1,application/json", MAPS).1["kind"], "ConfigMapList");
}

#[test]
fn updates_and_patches() {
    let c = Cluster::start();
    let path = format!("{MAPS}/a");
    let (_, made) = c.json("POST", MAPS, map("a"));
    // Nothing changed: nothing written.
    let (code, same) = c.json("PUT", &path, made.clone());
    assert_eq!((code, &same["metadata"]["resourceVersion"]), (200, &made["metadata"]["resourceVersion"]));
    let mut new = made.clone();
    new["data"]["a"] = json!("2");
    assert_eq!(c.json("PUT", &path, new.clone()).0, 200);
    let (code, status) = c.json("PUT", &path, new.clone());
    assert_eq!(code, 409);
    assert!(status["message"].as_str().unwrap().contains("the object has been modified"), "{status}");
    new["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(c.json("PUT", &path, new.clone()).0, 200);
    new["metadata"]["uid"] = json!("other");
    assert_eq!(c.json("PUT", &path, new.clone()).0, 409);
    new["metadata"]["name"] = json!("b");
    assert_eq!(c.json("PUT", &path, new).0, 400);
    assert_eq!(c.json("PUT", &format!("{MAPS}/none"), map("none")).0, 404);
    assert_eq!(c.json("PUT", MAPS, map("a")).0, 405);

    let patch = |form: &str, body: &str| {
        let (code, bytes) = c.raw("PATCH", &path, &[("Content-Type", form)], body.as_bytes());
        (code, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let merge = "application/merge-patch+json";
    assert_eq!(patch(merge, r#"{"data":{"b":"3","a":null}}"#).1["data"], json!({"b": "3"}));
    assert_eq!(
        patch("application/json-patch+json", r#"[{"op":"add","path":"/data/c","value":"4"}]"#).1["data"]["c"],
        "4"
    );
    assert_eq!(patch("application/strategic-merge-patch+json", r#"{"data":{"d":"5"}}"#).1["data"]["d"], "5");
    for (form, body, code) in [
        ("application/json", "{}", 415),
        ("application/json-patch+json", "{}", 400),
        ("application/json-patch+json", r#"[{"op":"test","path":"/data/b","value":"9"}]"#, 422),
        (merge, "[]", 400),
        (merge, "{", 400),
        (merge, r#"{"metadata":{"resourceVersion":"1"}}"#, 409),
        (merge, r#"{"metadata":{"name":"z"}}"#, 400),
        (merge, r#"{"data":{"x":5}}"#, 400),
        ("application/apply-patch+yaml", "apiVersion: v1\nkind: ConfigMap\n", 422),
    ] {
        assert_eq!(patch(form, body).0, code, "{form} {body}");
    }
    // A dry run changes nothing.
    let before = c.get(&path).1;
    assert_eq!(c.json("DELETE", &format!("{path}?dryRun=All"), Value::Null).0, 400);
    let (code, _) = c.raw("DELETE", &format!("{path}?dryRun=All"), &[], b"");
    assert_eq!(code, 200);
    let (code, tried) =
        c.json("PUT", &format!("{path}?dryRun=All"), json!({"metadata": {"name": "a"}, "data": {}}));
    assert_eq!((code, tried["data"].as_object().map(|d| d.len())), (200, Some(0)));
    assert_eq!(c.get(&path).1, before);
    assert_eq!(c.json("POST", &format!("{MAPS}?dryRun=Some"), map("z")).0, 422);
}

#[test]
fn deletes() {
    let c = Cluster::start();
    let path = format!("{MAPS}/a");
    let delete = |path: &str, body: Value| c.json("DELETE", path, body);
    let (_, made) = c.json("POST", MAPS, map("a"));
    let wrong = json!({"preconditions": {"uid": "x"}});
    let (code, status) = delete(&path, wrong);
    assert_eq!(code, 409);
    assert!(
        status["message"].as_str().unwrap().contains("the UID in the precondition (x) does not match"),
        "{status}"
    );
    let (code, status) = delete(
        &path,
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": made["metadata"]["uid"]}}),
    );
    assert_eq!(
        (code, &status["status"], &status["details"]["kind"]),
        (200, &json!("Success"), &json!("configmaps"))
    );
    assert_eq!(delete(&path, json!({})).0, 404);
    assert_eq!(delete("/api/v1/namespaces/default", json!({})).0, 403);

    // A finalizer holds it, its removal lets it go.
    let mut held = map("f");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    c.json("POST", MAPS, held);
    let path = format!("{MAPS}/f");
    let (code, object) = delete(&path, json!({"propagationPolicy": "Foreground"}));
    assert_eq!((code, object["metadata"]["deletionTimestamp"].is_string()), (200, true));
    assert_eq!(object["metadata"]["finalizers"], json!(["example.com/wait", "foregroundDeletion"]));
    let patch = |body: &str| {
        c.raw("PATCH", &path, &[("Content-Type", "application/merge-patch+json")], body.as_bytes()).0
    };
    assert_eq!(patch(r#"{"metadata":{"finalizers":["example.com/wait","example.com/more"]}}"#), 422);
    assert_eq!(patch(r#"{"metadata":{"finalizers":null}}"#), 200);
    assert_eq!(c.get(&path).0, 404);

    for name in ["x", "y"] {
        c.json("POST", MAPS, map(name));
    }
    let (code, list) = delete(&format!("{MAPS}?labelSelector=n%3Dx"), json!({}));
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!((c.get(&format!("{MAPS}/x")).0, c.get(&format!("{MAPS}/y")).0), (404, 200));
}

#[test]
fn pods_end_on_their_nodes() {
    let c = Cluster::start();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.json("POST", pods, pod.clone());
    // Not bound: gone at once.
    assert_eq!(c.raw("DELETE", &format!("{pods}/p"), &[], b"").0, 200);
    assert_eq!(c.get(&format!("{pods}/p")).0, 404);
    c.json("POST", pods, pod);
    let binding = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(c.json("POST", &format!("{pods}/p/binding"), binding("")).0, 422);
    assert_eq!(c.json("POST", &format!("{pods}/p/binding"), binding("n1")).0, 201);
    let (code, status) = c.json("POST", &format!("{pods}/p/binding"), binding("n2"));
    assert_eq!(code, 409);
    assert!(
        status["message"].as_str().unwrap().contains("pod p is already assigned to node \"n1\""),
        "{status}"
    );
    let (_, bound) = c.get(&format!("{pods}/p"));
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (_, going) = c.json("DELETE", &format!("{pods}/p"), json!({}));
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(c.get(&format!("{pods}/p")).0, 200);
    let (_, gone) = c.json("DELETE", &format!("{pods}/p"), json!({"gracePeriodSeconds": 0}));
    assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(c.get(&format!("{pods}/p")).0, 404);
}

#[test]
fn services_get_addresses_of_their_own() {
    let c = Cluster::start();
    let services = "/api/v1/namespaces/default/services";
    let make =
        |name: &str, spec: Value| c.json("POST", services, json!({"metadata": {"name": name}, "spec": spec}));
    let ports = json!([{"port": 80}]);
    let (code, a) = make("a", json!({"ports": ports, "type": "NodePort"}));
    assert_eq!(code, 201, "{a}");
    let address = a["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    let node_port = a["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&node_port));
    for (spec, words) in [
        (json!({"ports": ports, "clusterIP": address}), "provided IP is already allocated"),
        (json!({"ports": ports, "clusterIP": "10.96.0.1"}), "provided IP is already allocated"),
        (json!({"ports": ports, "clusterIP": "192.0.2.1"}), "not in the valid range"),
        (
            json!({"ports": [{"port": 1, "nodePort": node_port}], "type": "NodePort"}),
            "provided port is already allocated",
        ),
        (json!({"ports": [{"port": 1, "nodePort": 80}], "type": "NodePort"}), "not in the valid range"),
    ] {
        let (code, status) = make("b", spec);
        assert_eq!(code, 422, "{status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{status}");
    }
    assert_eq!(
        make("h", json!({"ports": ports, "clusterIP": "None"})).1["spec"]["clusterIPs"],
        json!(["None"])
    );
    // A replacement that names no address keeps it; as ClusterIP the node port goes.
    let body = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let (code, after) = c.json("PUT", &format!("{services}/a"), body);
    assert_eq!((code, &after["spec"]["clusterIP"]), (200, &json!(address)), "{after}");
    assert_eq!(after["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn what_every_cluster_has_comes_back() {
    let c = Cluster::start();
    let path = "/api/v1/namespaces/default/services/kubernetes";
    assert_eq!(c.raw("DELETE", path, &[], b"").0, 200);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/view";
    c.raw("PATCH", role, &[("Content-Type", "application/merge-patch+json")], br#"{"metadata":{"labels":{"my":"own"}}}"#);
    c.runtime.block_on(limpet_hub::api::bootstrap::ensure(&c.api)).unwrap();
    assert_eq!(c.get(path).1["spec"]["clusterIP"], "10.96.0.1");
    // What a user changed stays.
    assert_eq!(c.get(role).1["metadata"]["labels"]["my"], "own");
}

#[test]
fn quotas_and_limits() {
    let c = Cluster::start();
    let at = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    c.json(
        "POST",
        &at("resourcequotas"),
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "requests.cpu": "1"}}}),
    );
    let pod = |name: &str, cpu: &str| {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
        json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    let (code, status) = c.json("POST", &at("pods"), pod("big", "2"));
    assert_eq!(
        (code, status["message"].as_str().unwrap()),
        (
            403,
            "pods \"big\" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, \
             limited: requests.cpu=1"
        )
    );
    assert_eq!(c.json("POST", &at("pods"), pod("a", "500m")).0, 201);
    assert_eq!(c.json("POST", &at("pods"), pod("b", "100m")).0, 403);
    c.raw("DELETE", &at("resourcequotas/q"), &[], b"");
    let range = json!({"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"},
        "max": {"cpu": "1"}});
    c.json("POST", &at("limitranges"), json!({"metadata": {"name": "l"}, "spec": {"limits": [range]}}));
    let plain = json!({"metadata": {"name": "d"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (_, made) = c.json("POST", &at("pods"), plain);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})
    );
    let container = json!({"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}});
    let over = json!({"metadata": {"name": "o"}, "spec": {"containers": [container]}});
    let (code, status) = c.json("POST", &at("pods"), over);
    assert_eq!(code, 403);
    assert!(
        status["message"].as_str().unwrap().contains("maximum cpu usage per Container is 1, but limit is 2"),
        "{status}"
    );
}

#[test]
fn writers_at_the_same_time_all_get_through() {
    let c = Cluster::start();
    c.json("POST", MAPS, map("a"));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let c = &c;
            scope.spawn(move || {
                let body = format!("{{\"data\":{{\"k{n}\":\"v\"}}}}");
                let path = format!("{MAPS}/a");
                let patch = c.raw(
                    "PATCH",
                    &path,
                    &[("Content-Type", "application/merge-patch+json")],
                    body.as_bytes(),
                );
                assert_eq!(patch.0, 200);
            });
        }
    });
    assert_eq!(c.get(&format!("{MAPS}/a")).1["data"].as_object().unwrap().len(), 9);
}
