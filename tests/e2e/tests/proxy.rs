//! Into a pod through the API: pods/proxy and services/proxy over the board's own link.
//!
//! In: a world with one board and a web server in a pod. Out: what the proxy brings, and its reasons.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::json;
use std::time::Duration;

const WEB: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
  "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "hub.limpet/busybox:1",
    "command": ["sh", "-c", "mkdir -p /www/in && echo hello > /www/in/file && echo '<a href=\"/in/file\">x</a>' > /www/index.html && exec httpd -f -p 8080 -h /www"],
    "ports": [{"name": "http", "containerPort": 8080}],
    "readinessProbe": {"httpGet": {"path": "/in/file", "port": 8080}, "periodSeconds": 1}}]}}"#;
const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
  "spec": {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}}"#;
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn raw(world: &World, path: &str) -> Result<String> {
    world.kubectl.run(&["get", "--raw", path])
}

/// kubectl's sentence about a path that must fail.
fn refused(world: &World, path: &str) -> Result<String> {
    let output = world.kubectl.output(&["get", "--raw", path])?;
    wait::yes(output.code != 0, || format!("{path} was answered: {}", output.stdout))?;
    Ok(output.stderr)
}

#[test]
fn a_web_server_in_a_pod_is_reached_through_the_api() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(WEB)?;
        world.kubectl.apply(SERVICE)?;
        world.kubectl.say("wait --for=condition=Ready pod/web --timeout=90s")?;
        for path in ["web:8080/proxy/in/file", "web/proxy/in/file", "http:web:8080/proxy/in/file"] {
            let got = raw(world, &format!("{PODS}/{path}"))?;
            wait::yes(got.trim() == "hello", || format!("{path}: {got:?}"))?;
        }
        // Links on a page lead through the proxy again.
        let page = raw(world, &format!("{PODS}/web:8080/proxy/"))?;
        let link = format!("<a href=\"{PODS}/web:8080/proxy/in/file\">x</a>");
        wait::yes(page.trim() == link, || format!("{page:?} instead of {link:?}"))?;
        // The Service's pods are known once its slices are.
        for path in ["web:80/proxy/in/file", "web:web/proxy/in/file"] {
            until("the service's endpoints", Duration::from_secs(60), || {
                match raw(world, &format!("{SERVICES}/{path}")) {
                    Ok(got) if got.trim() == "hello" => Ok(()),
                    Ok(got) => Err(got),
                    Err(why) => Err(why),
                }
            })?;
        }
        for (path, words) in [
            (format!("{PODS}/web:8080/proxy/nothing"), "NotFound"),
            (format!("{PODS}/web:9/proxy/"), "ServiceUnavailable"),
            (format!("{PODS}/none/proxy/"), "not found"),
            (format!("{SERVICES}/web:99/proxy/"), "no service port 99 found for service"),
            (format!("{SERVICES}/web:other/proxy/"), "no endpoints available for service"),
        ] {
            let said = refused(world, &path)?;
            wait::yes(said.contains(words), || format!("{path}: {said:?} does not say {words:?}"))?;
        }
        // Who may get pods may not reach into them by that.
        world.kubectl.say("create role looks --verb=get --resource=pods")?;
        world.kubectl.say("create rolebinding looks --role=looks --user=jane")?;
        let output = world.kubectl.output(&["get", "--raw", &format!("{PODS}/web:8080/proxy/"), "--as=jane"])?;
        wait::yes(output.stderr.contains("Forbidden"), || format!("jane: {output:?}"))
    });
}
