//! CustomResourceDefinitions and their objects, by the real kubectl and by raw requests.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Cluster;

const CRONTAB: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: CronTab runs something now and then.
        required: [spec]
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$', description: When it runs.}
              image: {type: string, default: "busybox"}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              color: {type: string, nullable: true}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, port: {x-kubernetes-int-or-string: true}}
              any: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}, phase: {type: string}}
    selectableFields: [{jsonPath: .spec.image}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec, description: The cron spec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Image, type: string, jsonPath: .spec.image, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"#;

const MINE: &str = r#"
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: mine}
spec: {cronSpec: "* * * * */5", ports: [{name: web, port: 80}]}
"#;

const COLLECTION: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn apply(c: &Cluster, text: &str) -> support::Output {
    c.kubectl_in(&["apply", "-f", "-"], text)
}

fn crontabs() -> Cluster {
    let c = Cluster::start();
    apply(&c, CRONTAB).ok();
    c
}

fn object(c: &Cluster, name: &str) -> Value {
    let (code, value) = c.get(&format!("{COLLECTION}/{name}"));
    assert_eq!(code, 200, "{value}");
    value
}

#[test]
fn definition_and_object_in_one_go() {
    let c = Cluster::start();
    // The kind is served before the create of its definition is answered.
    let out = apply(&c, CRONTAB).ok();
    assert_eq!(
        out,
        "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n"
    );
    assert_eq!(
        apply(&c, MINE).ok(),
        "crontab.stable.example.com/mine created\n"
    );
    assert_eq!(
        apply(&c, MINE).ok(),
        "crontab.stable.example.com/mine unchanged\n"
    );
    let (_, crd) = c
        .get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["status"]["acceptedNames"]["shortNames"], json!(["ct"]));
    assert_eq!(crd["status"]["conditions"][1]["type"], "Established");
    assert_eq!(crd["metadata"]["generation"], 1);
    c.kubectl(&[
        "wait",
        "--for",
        "condition=established",
        "crd/crontabs.stable.example.com",
        "--timeout=120s",
    ])
    .ok();

    let mine = object(&c, "mine");
    assert_eq!(
        (&mine["spec"]["image"], &mine["spec"]["replicas"]),
        (&json!("busybox"), &json!(1))
    );
    assert_eq!(mine["metadata"]["generation"], 1);
    let table = c.kubectl(&["get", "ct"]).ok();
    assert!(
        table.starts_with("NAME   SPEC          REPLICAS   AGE\nmine   * * * * */5   1          "),
        "{table}"
    );
    let wide = c.kubectl(&["get", "crontab", "mine", "-o", "wide"]).ok();
    assert!(
        wide.lines().next().unwrap().contains("IMAGE") && wide.contains("busybox"),
        "{wide}"
    );
    assert!(
        c.kubectl(&["get", "all"])
            .ok()
            .contains("crontab.stable.example.com/mine")
    );
    let listed = c
        .kubectl(&["api-resources", "--api-group", "stable.example.com"])
        .ok();
    assert!(
        listed.contains("crontabs") && listed.contains("ct") && listed.contains("true"),
        "{listed}"
    );
    let explained = c.kubectl(&["explain", "crontab.spec"]).ok();
    assert!(
        explained.contains("cronSpec\t<string> -required-") && explained.contains("When it runs."),
        "{explained}"
    );
    assert!(
        c.kubectl(&["describe", "ct", "mine"])
            .ok()
            .contains("Cron Spec:  * * * * */5")
    );
}

#[test]
fn objects_are_pruned_and_judged() {
    let c = crontabs();
    let words = apply(
        &c,
        &MINE.replace(
            "cronSpec: \"* * * * */5\"",
            "cronSpec: \"no\", replicas: 15",
        ),
    )
    .fails();
    for expect in [
        "The CronTab \"mine\" is invalid:",
        "spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10",
        r#"spec.cronSpec: Invalid value: "no": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
    ] {
        assert!(words.contains(expect), "{words}");
    }
    let words = apply(&c, &MINE.replace("spec: {", "spec: {speck: 1, ")).fails();
    assert!(
        words.contains("strict decoding error: unknown field \"spec.speck\""),
        "{words}"
    );
    let words = apply(&c, &MINE.replace("{cronSpec: \"* * * * */5\",", "{")).fails();
    assert!(words.contains("spec.cronSpec: Required value"), "{words}");

    let body = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "x"},
        "spec": {"cronSpec": "* * * * *", "nope": 1, "color": null, "any": {"a": {"b": null}}}});
    let (code, made) = c.json("POST", COLLECTION, body);
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"].get("nope"), None);
    assert_eq!(
        (made["spec"].get("color"), &made["spec"]["any"]),
        (Some(&Value::Null), &json!({"a": {"b": null}}))
    );
    let doubled = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "y"},
        "spec": {"cronSpec": "* * * * *", "ports": [{"name": "a"}, {"name": "a"}]}});
    let (code, status) = c.json("POST", COLLECTION, doubled);
    assert_eq!(code, 422);
    assert_eq!(status["details"]["causes"][0]["field"], "spec.ports[1]");
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "FieldValueDuplicate"
    );
    let strategic = [("Content-Type", "application/strategic-merge-patch+json")];
    assert_eq!(
        c.raw("PATCH", &format!("{COLLECTION}/x"), &strategic, b"{}")
            .0,
        415
    );
    let merge = [("Content-Type", "application/merge-patch+json")];
    let (code, _) = c.raw(
        "PATCH",
        &format!("{COLLECTION}/x"),
        &merge,
        br#"{"spec":{"replicas":11}}"#,
    );
    assert_eq!(code, 422);
    let (code, _) = c.raw(
        "PATCH",
        &format!("{COLLECTION}/x"),
        &merge,
        br#"{"spec":{"replicas":3}}"#,
    );
    assert_eq!(code, 200);
    assert_eq!(object(&c, "x")["metadata"]["generation"], 2);
}

#[test]
fn status_and_scale_are_apart() {
    let c = crontabs();
    apply(&c, MINE).ok();
    let path = format!("{COLLECTION}/mine");
    let mut mine = object(&c, "mine");
    mine["spec"]["image"] = json!("other");
    mine["metadata"]["labels"] = json!({"a": "b"});
    mine["status"] = json!({"replicas": 2, "labelSelector": "a=b", "gone": 1});
    let (code, after) = c.json("PUT", &format!("{path}/status"), mine.clone());
    assert_eq!(code, 200, "{after}");
    assert_eq!(
        after["status"],
        json!({"replicas": 2, "labelSelector": "a=b"})
    );
    assert_eq!(
        (&after["spec"]["image"], after["metadata"].get("labels")),
        (&json!("busybox"), None)
    );
    assert_eq!(after["metadata"]["generation"], 1);
    mine["metadata"]["resourceVersion"] = json!("");
    mine["status"] = json!({"replicas": 9});
    let (code, after) = c.json("PUT", &path, mine);
    assert_eq!(code, 200, "{after}");
    assert_eq!(
        (
            &after["status"]["replicas"],
            &after["metadata"]["generation"]
        ),
        (&json!(2), &json!(2))
    );

    let (_, scale) = c.get(&format!("{path}/scale"));
    assert_eq!(scale["spec"], json!({"replicas": 1}));
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
    assert!(
        c.kubectl(&["scale", "ct/mine", "--replicas=4"])
            .ok()
            .contains("scaled")
    );
    assert_eq!(object(&c, "mine")["spec"]["replicas"], 4);
    assert!(
        c.kubectl(&["scale", "ct/mine", "--replicas=40"])
            .fails()
            .contains("should be less than or equal to 10")
    );
    assert!(
        c.kubectl(&["get", "ct", "mine", "--subresource=status"])
            .good
    );
}

#[test]
fn field_selectors_and_watches() {
    let c = crontabs();
    apply(&c, MINE).ok();
    apply(
        &c,
        &MINE
            .replace("name: mine", "name: other")
            .replace("spec: {", "spec: {image: nginx, "),
    )
    .ok();
    let out = c
        .kubectl(&[
            "get",
            "ct",
            "-o",
            "name",
            "--field-selector",
            "spec.image=nginx",
        ])
        .ok();
    assert_eq!(out, "crontab.stable.example.com/other\n");
    let words = c
        .kubectl(&["get", "ct", "--field-selector", "spec.cronSpec=x"])
        .fails();
    assert!(
        words.contains("field label not supported: spec.cronSpec"),
        "{words}"
    );
    let mut watch = c.watch(
        &format!("{COLLECTION}?watch=1&fieldSelector=spec.image%3Dnginx"),
        "application/json",
    );
    assert_eq!(watch.next_name(), ("ADDED".into(), "other".into()));
    c.kubectl(&[
        "patch",
        "ct",
        "mine",
        "--type=merge",
        "-p",
        r#"{"spec":{"image":"nginx"}}"#,
    ])
    .ok();
    assert_eq!(watch.next_name(), ("ADDED".into(), "mine".into()));
    c.kubectl(&["delete", "ct", "other"]).ok();
    assert_eq!(watch.next_name(), ("DELETED".into(), "other".into()));
}

#[test]
fn server_side_apply_follows_the_schema() {
    let c = crontabs();
    let apply = |manager: &str, port: &str| {
        let text = format!(
            "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: mine}}\nspec: {{cronSpec: '* * * * *', ports: [{port}]}}\n"
        );
        c.kubectl_in(
            &[
                "apply",
                "--server-side",
                "--field-manager",
                manager,
                "-f",
                "-",
            ],
            &text,
        )
    };
    apply("one", "{name: web, port: 80}").ok();
    apply("two", "{name: tls, port: 443}").ok();
    // A list of type map: each manager has its own item.
    let ports = object(&c, "mine")["spec"]["ports"].clone();
    assert_eq!(
        ports,
        json!([{"name": "web", "port": 80}, {"name": "tls", "port": 443}])
    );
    let words = apply("two", "{name: web, port: 81}").fails();
    assert!(
        words.contains(r#"conflict with "one": .spec.ports[name="web"].port"#),
        "{words}"
    );
    apply("one", "").ok();
    assert_eq!(
        object(&c, "mine")["spec"]["ports"],
        json!([{"name": "tls", "port": 443}])
    );
    let text = "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {name: mine}\nspec: {nope: 1}\n";
    let words = c
        .kubectl_in(&["apply", "--server-side", "-f", "-"], text)
        .fails();
    assert!(
        words.contains(".spec.nope: field not declared in schema"),
        "{words}"
    );
    let managers = object(&c, "mine")["metadata"]["managedFields"].clone();
    assert_eq!(managers[0]["fieldsV1"]["f:spec"]["f:cronSpec"], json!({}));
}

#[test]
fn several_versions_share_their_objects() {
    let c = Cluster::start();
    let second = "  - name: v2beta1\n    served: true\n    storage: false\n    deprecated: true\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec: {type: object, properties: {cronSpec: {type: string}, extra: {type: string, default: x}}}\n";
    apply(&c, &format!("{CRONTAB}{second}")).ok();
    apply(&c, MINE).ok();
    let (code, old) = c.get("/apis/stable.example.com/v2beta1/namespaces/default/crontabs/mine");
    assert_eq!(
        (code, &old["apiVersion"]),
        (200, &json!("stable.example.com/v2beta1"))
    );
    // Each version shows what its own schema knows.
    assert_eq!(
        old["spec"],
        json!({"cronSpec": "* * * * */5", "extra": "x"})
    );
    let (_, group) = c.get("/apis/stable.example.com");
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let out = c.kubectl(&["get", "crontabs.v2beta1.stable.example.com"]);
    assert!(
        out.err
            .contains("stable.example.com/v2beta1 CronTab is deprecated"),
        "{}",
        out.err
    );
    let mut watch = c.watch(
        "/apis/stable.example.com/v2beta1/namespaces/default/crontabs?watch=1",
        "application/json",
    );
    assert_eq!(watch.next().1["apiVersion"], "stable.example.com/v2beta1");
}

#[test]
fn a_changed_schema_holds_for_old_objects() {
    let c = crontabs();
    apply(
        &c,
        &MINE.replace("spec: {", "spec: {image: a-very-long-name, color: red, "),
    )
    .ok();
    let stricter = CRONTAB
        .replace("default: \"busybox\"}", "maxLength: 5}")
        .replace(
            "color: {type: string, nullable: true}",
            "shade: {type: string, default: dark}",
        );
    apply(&c, &stricter).ok();
    let mine = object(&c, "mine");
    assert_eq!(
        (mine["spec"].get("color"), &mine["spec"]["shade"]),
        (None, &json!("dark"))
    );
    // What is too long already may stay; new values may not be.
    let patch = |text: &str| c.kubectl(&["patch", "ct", "mine", "--type=merge", "-p", text]);
    patch(r#"{"spec":{"replicas":2}}"#).ok();
    let words = patch(r#"{"spec":{"image":"still-too-long"}}"#).fails();
    assert!(
        words.contains("spec.image: Too long: may not be more than 5 bytes"),
        "{words}"
    );
}

#[test]
fn names_belong_to_whoever_had_them_first() {
    let c = crontabs();
    let second = CRONTAB
        .replace("crontabs", "tables")
        .replace("singular: crontab", "singular: table");
    apply(&c, &second).ok();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tables.stable.example.com";
    let (_, crd) = c.get(path);
    assert_eq!(
        crd["status"]["conditions"][0]["status"], "False",
        "{}",
        crd["status"]
    );
    assert_eq!(
        crd["status"]["conditions"][0]["reason"],
        "ShortNamesConflict"
    );
    assert_eq!(crd["status"]["conditions"][1]["reason"], "NotAccepted");
    assert_eq!(c.get("/apis/stable.example.com/v1/tables").0, 404);
    // When the first goes, the second gets what it asked for.
    c.kubectl(&[
        "delete",
        "crd",
        "crontabs.stable.example.com",
        "--timeout=60s",
    ])
    .ok();
    c.kubectl(&[
        "wait",
        "--for",
        "condition=established",
        "crd/tables.stable.example.com",
        "--timeout=60s",
    ])
    .ok();
    assert_eq!(c.get("/apis/stable.example.com/v1/tables").0, 200);
}

#[test]
fn a_definition_goes_with_its_objects() {
    let c = crontabs();
    apply(&c, MINE).ok();
    apply(
        &c,
        &MINE.replace(
            "{name: mine}",
            "{name: held, finalizers: [example.com/hold]}",
        ),
    )
    .ok();
    c.kubectl(&[
        "delete",
        "crd",
        "crontabs.stable.example.com",
        "--wait=false",
    ])
    .ok();
    c.kubectl(&["wait", "--for=delete", "ct/mine", "--timeout=60s"])
        .ok();
    let path =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
    let (_, crd) = c.get(path);
    assert_eq!(
        crd["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let words = apply(&c, MINE).fails();
    assert!(
        words.contains("create not allowed while custom resource definition is terminating"),
        "{words}"
    );
    c.kubectl(&[
        "patch",
        "ct",
        "held",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
    ])
    .ok();
    c.kubectl(&[
        "wait",
        "--for=delete",
        "crd/crontabs.stable.example.com",
        "--timeout=60s",
    ])
    .ok();
    assert_eq!(c.get(COLLECTION).0, 404);
    assert_eq!(c.get("/apis/stable.example.com").0, 404);
    // The same again, without what was there before.
    apply(&c, CRONTAB).ok();
    assert!(c.get(COLLECTION).1["items"].as_array().unwrap().is_empty());
}

#[test]
fn rights_and_partial_metadata_as_for_other_kinds() {
    let c = crontabs();
    apply(&c, MINE).ok();
    let kubeconfig = c.kubeconfig_of("jane", &[]);
    let words = c.kubectl_as(&kubeconfig, &["get", "ct"], "").fails();
    assert!(
        words.contains("cannot list resource \"crontabs\" in API group \"stable.example.com\""),
        "{words}"
    );
    c.kubectl(&[
        "create",
        "role",
        "r",
        "--verb=list",
        "--resource=crontabs.stable.example.com",
    ])
    .ok();
    c.kubectl(&["create", "rolebinding", "r", "--role=r", "--user=jane"])
        .ok();
    assert!(
        c.kubectl_as(&kubeconfig, &["get", "ct"], "")
            .ok()
            .contains("mine")
    );
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (code, bytes) = c.raw("GET", COLLECTION, &[("Accept", accept)], b"");
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (code, &list["kind"]),
        (200, &json!("PartialObjectMetadataList"))
    );
    assert_eq!(list["items"][0]["metadata"]["name"], "mine");
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\nspec: {hard: {count/crontabs.stable.example.com: 1}}\n";
    apply(&c, quota).ok();
    let words = apply(&c, &MINE.replace("name: mine", "name: more")).fails();
    assert!(
        words.contains("exceeded quota: q, requested: count/crontabs.stable.example.com=1"),
        "{words}"
    );
}

#[test]
fn documents_follow_the_definitions() {
    let c = Cluster::start();
    let index = |c: &Cluster| c.get("/openapi/v3").1["paths"]["apis/stable.example.com/v1"].clone();
    assert!(index(&c).is_null());
    apply(&c, CRONTAB).ok();
    let url = index(&c)["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, document) = c.get(&url);
    assert_eq!(code, 200);
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["replicas"]["maximum"],
        10
    );
    assert_eq!(
        schema["x-kubernetes-group-version-kind"][0]["kind"],
        "CronTab"
    );
    let item =
        &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"];
    assert!(
        item["patch"]["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null()
    );
    assert!(item["patch"]["requestBody"]["content"]["application/merge-patch+json"].is_object());
    let (_, v2) = c.get("/openapi/v2");
    assert!(v2["definitions"]["com.example.stable.v1.CronTab"].is_object());
    apply(&c, &CRONTAB.replace("maximum: 10", "maximum: 11")).ok();
    assert_ne!(index(&c)["serverRelativeURL"], url.as_str());
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, bytes) = c.raw("GET", "/apis", &[("Accept", accept)], b"");
    let groups: Value = serde_json::from_slice(&bytes).unwrap();
    let ours = groups["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "stable.example.com");
    let resource = &ours.unwrap()["versions"][0]["resources"][0];
    assert_eq!(resource["subresources"].as_array().unwrap().len(), 2);
}

#[test]
fn rules_are_kept_and_hostile_ones_refused() {
    let c = Cluster::start();
    let ruled = CRONTAB.replace(
        "              image: {type: string, default: \"busybox\"}\n",
        "              image:\n                type: string\n                default: busybox\n                maxLength: 64\n                x-kubernetes-validations:\n                - {rule: 'self == oldSelf', message: image is immutable}\n",
    );
    assert!(ruled.contains("immutable"));
    apply(&c, &ruled).ok();
    apply(&c, MINE).ok();
    let patch = |text: &str| c.kubectl(&["patch", "ct", "mine", "--type=merge", "-p", text]);
    let words = patch(r#"{"spec":{"image":"other"}}"#).fails();
    assert!(words.contains("spec.image: Invalid value: \"other\": image is immutable"), "{words}");
    patch(r#"{"spec":{"replicas":2}}"#).ok();
    let split = |name: &str, inner: &str| format!("self.split(\"\").all({name}, {inner})");
    let nested = split("a", &split("b", &split("c", "a + b + c != \"\"")));
    let hostile = ruled.replace("self == oldSelf", &nested);
    let words = apply(&c, &hostile.replace("maxLength: 64", "maxLength: 6400")).fails();
    assert!(words.contains("estimated rule cost exceeds budget by factor of more than 100x"), "{words}");
    let words = apply(&c, &ruled.replace("self == oldSelf", "self.nope > 1")).fails();
    assert!(words.contains("compilation failed: ERROR: <input>:1:5"), "{words}");
}

#[test]
fn a_watch_ends_with_its_definition() {
    let c = crontabs();
    apply(&c, MINE).ok();
    let mut watch = c.watch(&format!("{COLLECTION}?watch=1"), "application/json");
    assert_eq!(watch.next_name(), ("ADDED".into(), "mine".into()));
    apply(&c, &CRONTAB.replace("maximum: 10", "maximum: 11")).ok();
    assert!(watch.ended());
}
