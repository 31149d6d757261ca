//! Every kubectl command that people use daily, with both kubectl versions, against a real hub and a real board.
//!
//! In: a world with one board. Out: what kubectl prints and what it exits with.

use limpet_e2e::process::run_with;
use limpet_e2e::world::test;
use limpet_e2e::{Kubectl, Result, World, kubectl, until, wait};
use serde_json::json;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn contains(text: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|w| !text.contains(**w)).collect();
    wait::yes(missing.is_empty(), || format!("{missing:?} not in:\n{text}"))
}

/// Runs a list of commands: what each must print.
fn all(kubectl: &Kubectl, list: &[(&str, &[&str])]) -> Result<()> {
    for (words, expect) in list {
        contains(&kubectl.say(words)?, expect).map_err(|why| format!("kubectl {words}: {why}"))?;
    }
    Ok(())
}

fn with_both(body: fn(&World, &Kubectl) -> Result<()>) {
    test(1, &json!({}), |world| {
        for program in [world.kubectl.program.clone(), kubectl::newer()?] {
            let kubectl = Kubectl::with(program, &world.hub.kubeconfig());
            let version = kubectl.say("version --client")?;
            println!("{}", version.lines().next().unwrap_or_default());
            body(world, &kubectl).map_err(|why| format!("{}: {why}", version.lines().next().unwrap_or_default()))?;
        }
        Ok(())
    });
}

fn shell(name: &str, script: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script], "stdin": true}]},
    })
    .to_string()
}

/// The same with `stdinOnce`.
fn once(pod: String) -> String {
    pod.replace("\"stdin\":true", "\"stdin\":true,\"stdinOnce\":true")
}

#[test]
fn looking_around() {
    with_both(|_, kubectl| {
        all(
            kubectl,
            &[
                ("version", &["Server Version: v1.3"]),
                ("cluster-info", &["Kubernetes control plane", "is running at"]),
                ("api-versions", &["apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1", "\nv1\n"]),
                ("api-resources", &["deployments", "deploy", "apps/v1", "ConfigMap"]),
                ("api-resources --namespaced=false -o name", &["nodes", "namespaces"]),
                ("explain pod.spec.containers.livenessProbe", &["FIELD: livenessProbe", "DESCRIPTION:", "httpGet"]),
                ("explain deployment --recursive", &["KIND:       Deployment", "progressDeadlineSeconds"]),
                ("auth can-i create deployments", &["yes"]),
                ("auth can-i --list", &["*.*"]),
                ("auth whoami", &["system:masters"]),
                ("config view", &["DATA+OMITTED", "current-context: limpet"]),
                ("config current-context", &["limpet"]),
                ("get nodes -o wide", &["board-1", "Ready", "INTERNAL-IP"]),
                ("describe node board-1", &["Conditions:", "Allocatable:", "Ready", "System Info:"]),
                ("get namespaces", &["default", "kube-system", "Active"]),
                ("get all -A", &["service/kubernetes"]),
                ("get --raw /readyz", &["ok"]),
                ("get --raw /livez?verbose", &["ok"]),
                ("get nodes -o jsonpath={.items[0].metadata.name}", &["board-1"]),
                ("get node board-1 -o yaml", &["kind: Node", "kubernetes.io/hostname: board-1"]),
                ("get node board-1 -o custom-columns=A:.metadata.name", &["board-1"]),
                ("get nodes --show-labels", &["kubernetes.io/os=linux"]),
                ("get events -A", &[]),
            ],
        )?;
        let denied = kubectl.output(&["auth", "can-i", "create", "pods", "--as=nobody"])?;
        contains(&denied.stdout, &["no"])?;
        let missing = kubectl.output(&["get", "pod", "nothing"])?;
        contains(&missing.stderr, &["Error from server (NotFound): pods \"nothing\" not found"])
    });
}

#[test]
fn making_changing_and_removing() {
    with_both(|_, kubectl| {
        let ns = "making";
        kubectl.say(&format!("create namespace {ns}"))?;
        let n = |words: &str| format!("-n {ns} {words}");
        all(
            kubectl,
            &[
                (&n("create configmap c --from-literal=a=b"), &["configmap/c created"]),
                (&n("create secret generic s --from-literal=a=b"), &["secret/s created"]),
                (&n("create serviceaccount robot"), &["created"]),
                (&n("create role r --verb=get --resource=pods"), &["created"]),
                (&n("create rolebinding rb --role=r --serviceaccount=making:robot"), &["created"]),
                (&n("auth can-i get pods --as=system:serviceaccount:making:robot"), &["yes"]),
                (&n("get configmap c -o jsonpath={.data.a}"), &["b"]),
                (&n("label configmap c color=blue"), &["labeled"]),
                (&n("label configmap c color=red --overwrite"), &["labeled"]),
                (&n("annotate configmap c note=x"), &["annotated"]),
                (&n("get configmaps -l color=red"), &["c "]),
                (&n("get configmaps -l color!=red,!color -o name"), &["kube-root-ca.crt"]),
                (&n("get configmap --field-selector metadata.name=c -o name"), &["configmap/c"]),
                (&n(r#"patch configmap c -p {"data":{"x":"1"}}"#), &["patched"]),
                (&n(r#"patch configmap c --type=merge -p {"data":{"x":null}}"#), &["patched"]),
                (&n(r#"patch configmap c --type=json -p [{"op":"add","path":"/data/y","value":"2"}]"#), &["patched"]),
                (&n("get configmap c -o jsonpath={.data}"), &[r#"{"a":"b","y":"2"}"#]),
                (&n("describe configmap c"), &["Labels:", "color=red", "y:"]),
                (&n("describe secret s"), &["Type:  Opaque", "a:  1 bytes"]),
                (&n("create token robot"), &["ey"]),
                (&n("get configmaps --chunk-size=1 -o name"), &["configmap/c", "configmap/kube-root-ca.crt"]),
            ],
        )?;
        // apply, what it would change, server-side, and edit through an editor that is a sed.
        let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: making}\ndata: {k: one}\n";
        kubectl.apply(manifest)?;
        contains(&kubectl.apply(manifest)?, &["unchanged"])?;
        let two = manifest.replace("one", "two");
        let diff = kubectl.with_input(&["diff", "-f", "-"], &two)?;
        wait::yes(diff.code == 1 && diff.stdout.contains("+  k: two"), || format!("kubectl diff: {diff:?}"))?;
        contains(&kubectl.apply(&two)?, &["configured"])?;
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        contains(&kubectl.with_input(&server_side, manifest)?.ok("apply --server-side")?, &["serverside-applied"])?;
        let edited = run_with(
            Command::new(&kubectl.program)
                .args(["-n", ns, "edit", "configmap", "applied"])
                .env("KUBECONFIG", &kubectl.kubeconfig)
                .env("EDITOR", "sed -i s/one/edited/"),
            b"",
        )?;
        contains(&edited.ok("kubectl edit")?, &["edited"])?;
        all(kubectl, &[(&n("get configmap applied -o jsonpath={.data.k}"), &["edited"])])?;
        contains(&kubectl.with_input(&["replace", "-f", "-"], &two)?.ok("replace")?, &["replaced"])?;
        // Unknown and wrong fields: strict by default, and the server's words.
        let odd = kubectl.with_input(&["create", "-f", "-"], &two.replace("data:", "datum: {}\ndata:"))?;
        contains(&odd.stderr, &["unknown field \"datum\""])?;
        let wrong = kubectl.with_input(&["create", "-f", "-"], &two.replace("applied", "Not_A_Name"))?;
        contains(&wrong.stderr, &["Invalid value: \"Not_A_Name\"", "lowercase RFC 1123"])?;
        let dry = kubectl.say(&n("create deployment d --image=x --dry-run=server -o yaml"))?;
        contains(&dry, &["progressDeadlineSeconds: 600"])?;
        kubectl.say(&n("delete configmap c applied"))?;
        kubectl.say(&format!("delete namespace {ns} --timeout=60s"))?;
        let gone = kubectl.output(&["get", "namespace", ns])?;
        contains(&gone.stderr, &["NotFound"])
    });
}

#[test]
fn rolling_out() {
    with_both(|world, kubectl| {
        kubectl.apply(limpet_e2e::tour::WORKLOAD)?;
        all(
            kubectl,
            &[
                ("rollout status deployment web --timeout=60s", &["successfully rolled out"]),
                ("get deployment web", &["3/3"]),
                ("get replicasets -l app=web", &["3         3         3"]),
                ("wait --for=condition=Available deployment/web --timeout=30s", &["condition met"]),
                ("set env deployment/web COLOR=blue", &["env updated"]),
                ("rollout status deployment web --timeout=90s", &["successfully rolled out"]),
                ("rollout history deployment web", &["REVISION", "2"]),
                ("rollout undo deployment web", &["rolled back"]),
                ("rollout status deployment web --timeout=90s", &["successfully rolled out"]),
                ("rollout history deployment web", &["3"]),
                ("rollout restart deployment web", &["restarted"]),
                ("rollout status deployment web --timeout=90s", &["successfully rolled out"]),
                ("rollout pause deployment web", &["paused"]),
                ("set image deployment/web web=hub.limpet/busybox:1", &["image updated"]),
                ("set image deployment/web web=hub.limpet/demo-web:1", &["image updated"]),
                ("rollout resume deployment web", &["resumed"]),
                ("scale deployment web --replicas=2", &["scaled"]),
                ("rollout status deployment web --timeout=90s", &["successfully rolled out"]),
                ("describe deployment web", &["RollingUpdateStrategy:", "NewReplicaSet:", "Events:", "ScalingReplicaSet"]),
                ("get endpointslices -l kubernetes.io/service-name=web", &["8080"]),
                ("describe service web", &["Endpoints:", "TargetPort:"]),
            ],
        )?;
        contains(&kubectl.say("get pods -l app=web")?, &["1/1", "Running"])?;
        let pod = kubectl.say("get pods -l app=web -o jsonpath={.items[0].metadata.name}")?;
        contains(&kubectl.say(&format!("describe pod {pod}"))?, &["Started", "Image ID:", "QoS Class:", "Mounts:"])?;
        kubectl.with_input(&["delete", "-f", "-"], limpet_e2e::tour::WORKLOAD)?.ok("delete")?;
        until("no pods", SOON, || {
            let left = world.kubectl.items("get pods")?.len();
            wait::yes(left == 0, || format!("{left} pods are left"))
        })
    });
}

#[test]
fn inside_containers() {
    with_both(|world, kubectl| {
        kubectl.apply(&shell("box", "echo started; echo problem >&2; sleep 1000"))?;
        kubectl.say("wait --for=condition=Ready pod/box --timeout=60s")?;
        until("the log", SOON, || contains(&kubectl.say("logs box")?, &["started", "problem"]))?;
        all(
            kubectl,
            &[
                ("logs box --tail=1", &["problem"]),
                ("logs box --since=1h", &["started"]),
                ("logs box --timestamps", &["Z started"]),
                ("logs box --limit-bytes=3", &["sta"]),
                ("exec box -- id -u", &["0"]),
                ("exec box -c main -- hostname", &["box"]),
                ("exec box -- cat /etc/resolv.conf", &["nameserver", "default.svc.cluster.local"]),
                ("exec box -- cat /etc/hosts", &["box"]),
            ],
        )?;
        let code = kubectl.output(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        wait::yes((code.code, code.stdout.as_str()) == (7, "out\n") && code.stderr.contains("err\n"), || {
            format!("exec: {code:?}")
        })?;
        let cat = kubectl.with_input(&["exec", "-i", "box", "--", "wc", "-c"], &"x".repeat(1_000_000))?;
        contains(&cat.ok("exec -i")?, &["1000000"])?;
        let no = kubectl.output(&["exec", "box", "--", "/nothing"])?;
        wait::yes(no.code != 0 && no.stderr.contains("no such file"), || format!("exec of nothing: {no:?}"))?;
        terminal(kubectl)?;
        attach(kubectl)?;
        copy(world, kubectl)?;
        following(world, kubectl)?;
        kubectl.say("delete pod box --force --grace-period=0").map(|_| ())
    });
}

/// `exec -it` on a real terminal: its size arrives, what is typed is echoed, the exit code comes back.
fn terminal(kubectl: &Kubectl) -> Result<()> {
    // The size follows the start, as in Kubernetes: whoever asks at once may see none yet.
    let inside = "test -t 0 || exit 1; for n in 1 2 3 4 5 6 7 8 9 10; do stty size 2>&1 | grep 77 && break; sleep 0.1; done; read word; exit ${#word}";
    let out = kubectl.terminal(&["exec", "-it", "box", "--", "sh", "-c", inside], 33, 77, "four\n")?;
    wait::yes(out.code == 4, || format!("exec -it: {out:?}"))?;
    contains(&out.stdout, &["33 77", "four"])
}

/// Attaching ends with the container; what is typed reaches it, what it says comes back.
fn attach(kubectl: &Kubectl) -> Result<()> {
    let script = "read line; echo heard $line; sleep 0.5";
    kubectl.apply(&once(shell("listener", script)))?;
    kubectl.say("wait --for=condition=Ready pod/listener --timeout=60s")?;
    let attached = kubectl.with_input(&["attach", "-i", "listener"], "hello\n")?.ok("kubectl attach")?;
    contains(&attached, &["heard hello"])?;
    kubectl.say("delete pod listener --force --grace-period=0")?;
    ends_of_input(kubectl)
}

/// With `stdinOnce`, which `kubectl run -i` asks for, the end of what is piped in is the program's end of input; without it only
/// the attaching ends (containerd).
fn ends_of_input(kubectl: &Kubectl) -> Result<()> {
    let run = "run -i --rm piped --image=hub.limpet/busybox:1 --restart=Never -- sh -c".split(' ');
    let run: Vec<&str> = run.chain(["wc -c; exit 5"]).collect();
    let counted = kubectl.with_input(&run, &"x".repeat(300_000))?;
    wait::yes(counted.code == 5 && counted.stdout.contains("300000"), || format!("run -i: {counted:?}"))?;
    kubectl.apply(&shell("hears", "while read line; do echo heard $line; done; echo over; exec sleep 1000000"))?;
    kubectl.say("wait --for=condition=Ready pod/hears --timeout=60s")?;
    for word in ["once", "twice"] {
        kubectl.with_input(&["attach", "-i", "hears"], &format!("{word}\n"))?.ok("kubectl attach")?;
        until("the word in the log", Duration::from_secs(60), || {
            let log = kubectl.say("logs hears")?;
            wait::yes(log.contains(&format!("heard {word}\n")) && !log.contains("over"), || log)
        })?;
    }
    kubectl.say("delete pod hears --force --grace-period=0")?;
    // Who goes without a word has ended it, too.
    kubectl.apply(&once(shell("once", "cat; echo over; exec sleep 1000000")))?;
    kubectl.say("wait --for=condition=Ready pod/once --timeout=60s")?;
    let mut somebody = kubectl.waiting(&["attach", "-i", "once"])?;
    let heard = |word: &str| {
        until(word, Duration::from_secs(60), || {
            let log = kubectl.say("logs once")?;
            wait::yes(log.contains(word), || log)
        })
    };
    let typed = somebody.stdin.as_mut().ok_or("no input")?.write_all(b"typed\n");
    typed.map_err(|e| e.to_string())?;
    heard("typed")?;
    wait::yes(!kubectl.say("logs once")?.contains("over"), || "it ended while somebody was there".into())?;
    somebody.kill().and_then(|()| somebody.wait()).map_err(|e| e.to_string())?;
    heard("over")?;
    kubectl.say("delete pod once --force --grace-period=0").map(|_| ())
}

fn copy(world: &World, kubectl: &Kubectl) -> Result<()> {
    let dir = world.slot.dir().join("copy");
    std::fs::create_dir_all(dir.join("sub")).map_err(|e| e.to_string())?;
    let bytes: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(dir.join("sub/file"), &bytes).map_err(|e| e.to_string())?;
    let there = dir.to_string_lossy().into_owned();
    kubectl.run(&["cp", &there, "box:/tmp/copied"])?;
    let back = format!("{there}-back");
    kubectl.run(&["cp", "box:/tmp/copied/sub/file", &back])?;
    let same = std::fs::read(&back).is_ok_and(|b| b == bytes);
    wait::yes(same, || "what kubectl cp brought back differs".to_string())?;
    // A directory back, with an empty file, an empty directory, and a name that a shell would take apart.
    let odd = "cd /tmp/copied/sub && touch empty && echo x >'a b;c' && mkdir -p deep/er";
    kubectl.run(&["exec", "box", "--", "sh", "-c", odd])?;
    let tree = format!("{there}-tree");
    let _ = std::fs::remove_dir_all(&tree);
    kubectl.run(&["cp", "box:/tmp/copied/sub", &tree])?;
    let read = |name: &str| std::fs::read(format!("{tree}/{name}")).map_err(|e| format!("{name} was not copied: {e}"));
    wait::yes(read("file")? == bytes && read("empty")?.is_empty() && read("a b;c")? == b"x\n", || "other bytes".to_string())?;
    wait::yes(std::path::Path::new(&format!("{tree}/deep/er")).is_dir(), || "the empty directory is lost".to_string())?;
    // tar ends its archive also when there is nothing in it, and kubectl may leave with that, before it has heard of the error.
    until("kubectl cp of nothing", Duration::from_secs(60), || {
        let none = kubectl.output(&["cp", "box:/tmp/nothing", &format!("{tree}-none")])?;
        wait::yes((none.stdout + &none.stderr).contains("No such file"), || "nothing was said".to_string())
    })?;
    let far = kubectl.output(&["cp", "nobody:/tmp/x", &format!("{tree}-none")])?;
    contains(&far.stderr, &["pods \"nobody\" not found"])
}

/// `logs -f` ends when the container does; `--previous` shows the one before.
fn following(world: &World, kubectl: &Kubectl) -> Result<()> {
    let script = "echo first; for n in 1 2 3; do echo line $n; sleep 0.2; done; exit 3";
    kubectl.apply(&shell("restarts", script))?;
    until("a restart", SOON, || {
        let pod = kubectl.json("get pod restarts")?;
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        wait::yes(restarts >= 1, || format!("{restarts} restarts"))
    })?;
    contains(&kubectl.say("logs restarts --previous")?, &["first", "line 3"])?;
    let log = world.slot.dir().join("follow.log");
    let _ = std::fs::remove_file(&log);
    kubectl.apply(&shell("follow", "for n in 1 2 3 4 5; do echo line $n; sleep 0.2; done; sleep 1"))?;
    kubectl.say("wait --for=condition=Ready pod/follow --timeout=60s")?;
    let mut daemon = kubectl.start(&["logs", "-f", "follow"], &log)?;
    until("the end of logs -f", SOON, || match daemon.check() {
        Ok(()) => Err("it still follows".to_string()),
        Err(_) => Ok(()),
    })?;
    contains(&limpet_e2e::process::tail(&log, 1000), &["line 1", "line 5"])?;
    from_the_end(world, kubectl)?;
    kubectl.say("delete pod restarts follow --force --grace-period=0").map(|_| ())
}

/// `--tail` and `-f` together: the last lines, then what comes, and nothing twice; the same for a whole label.
fn from_the_end(world: &World, kubectl: &Kubectl) -> Result<()> {
    let script = "for n in 1 2 3 4 5; do echo old $n; done; until [ -f /go ]; do sleep 0.1; done; echo new; sleep 1000";
    kubectl.apply(&shell("ends", script))?;
    kubectl.say("wait --for=condition=Ready pod/ends --timeout=60s")?;
    until("the old lines", SOON, || contains(&kubectl.say("logs ends")?, &["old 5"]))?;
    let start = |words: &[&str], name: &str| {
        let log = world.slot.dir().join(name);
        let _ = std::fs::remove_file(&log);
        kubectl.start(words, &log).map(|daemon| (daemon, log))
    };
    let (_one, one) = start(&["logs", "-f", "--tail=2", "ends"], "tail.log")?;
    let (_all, all) = start(&["logs", "-f", "--tail=1", "-l", "app=ends", "--all-containers", "--prefix"], "label.log")?;
    let read = |log: &std::path::Path| std::fs::read_to_string(log).unwrap_or_default();
    until("the last lines", SOON, || contains(&(read(&one) + &read(&all)), &["old 4\nold 5\n", "[pod/ends/main] old 5"]))?;
    kubectl.run(&["exec", "ends", "--", "touch", "/go"])?;
    until("the new line", SOON, || contains(&(read(&one) + &read(&all)), &["old 5\nnew\n", "[pod/ends/main] new"]))?;
    wait::yes(read(&one) == "old 4\nold 5\nnew\n", || read(&one))?;
    wait::yes(read(&all) == "[pod/ends/main] old 5\n[pod/ends/main] new\n", || read(&all))?;
    kubectl.say("delete pod ends --force --grace-period=0").map(|_| ())
}

#[test]
fn nodes_jobs_and_waiting() {
    with_both(|world, kubectl| {
        all(kubectl, &[("cordon board-1", &["cordoned"]), ("get nodes", &["SchedulingDisabled"])])?;
        kubectl.apply(&shell("pending", "sleep 1000"))?;
        until("why it waits", SOON, || {
            let why = "0/1 nodes are available: 1 node(s) were unschedulable";
            contains(&kubectl.say("describe pod pending")?, &["FailedScheduling", why])
        })?;
        all(kubectl, &[
            ("uncordon board-1", &["uncordoned"]),
            ("wait --for=condition=Ready pod/pending --timeout=60s", &["condition met"]),
            ("taint node board-1 only=this:NoSchedule", &["tainted"]),
            ("taint node board-1 only-", &["untainted"]),
            ("create job once --image=hub.limpet/busybox:1 -- true", &["created"]),
        ])?;
        let words = ["create", "job", "twice", "--image=hub.limpet/busybox:1", "--", "sh", "-c", "echo job done"];
        kubectl.run(&words)?;
        all(kubectl, &[
            ("wait --for=condition=Complete job/twice --timeout=60s", &["condition met"]),
            ("logs job/twice", &["job done"]),
            ("get jobs", &["Complete", "1/1"]),
            ("delete job once twice", &["deleted"]),
        ])?;
        // drain refuses a bare pod, and evicts with --force.
        let refused = kubectl.output(&["drain", "board-1", "--ignore-daemonsets"])?;
        contains(&refused.stderr, &["cannot delete", "default/pending"])?;
        let words = "drain board-1 --ignore-daemonsets --force --delete-emptydir-data --timeout=60s";
        contains(&kubectl.say(words)?, &["drained"])?;
        kubectl.say("uncordon board-1")?;
        watch(world, kubectl)
    });
}

/// `get -w` shows a pod's life.
fn watch(world: &World, kubectl: &Kubectl) -> Result<()> {
    let log = world.slot.dir().join("watch.log");
    let _ = std::fs::remove_file(&log);
    let _daemon = kubectl.start(&["get", "pods", "-w"], &log)?;
    kubectl.apply(&shell("seen", "exit 0").replace("\"stdin\":true", "\"tty\":false"))?;
    until("the watch", SOON, || {
        contains(&limpet_e2e::process::tail(&log, 4000), &["seen", "ContainerCreating", "Completed"])
    })?;
    kubectl.say("delete pod seen --force --grace-period=0").map(|_| ())
}
