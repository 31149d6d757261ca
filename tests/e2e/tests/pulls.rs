//! The image store against registries that are not ours: who is let in, which way is gone, how fast, and what a cut costs.
//!
//! In: Debian's docker-registry behind passwords, TLS, a valve that cuts; secrets, mirrors, limits and policies as people set
//! them. Out: running containers, bytes on the wire, or Kubernetes' own reasons why not.

use limpet_e2e::images::{self, Target};
use limpet_e2e::process::sh;
use limpet_e2e::registry::{Door, Registry};
use limpet_e2e::valve::Valve;
use limpet_e2e::world::test;
use limpet_e2e::{Agent, Result, World, net, until, wait};
use limpet_oci::builder::{self, Blob, Layer};
use limpet_oci::config::Execution;
use limpet_oci::{Digest, Platform, manifest};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(90);
/// `htpasswd -B` of anna:secret-a and bert:secret-b.
const ANNA: &str = "anna:$2y$05$abcdefghijklmnopqrstuusZ0MsoIBx0wZFhP9gVvI4q2LLxmDnmC\n";
const BERT: &str = "bert:$2y$05$abcdefghijklmnopqrstuuW6lIaGaqwH1wlfyn7x/ASngXzSZeec.\n";

fn pod(name: &str, image: &str, more: Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"]}]},
    });
    if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    pod.to_string()
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=120s")).map(|_| ()).map_err(|why| {
        format!("{why}\n{}", world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default())
    })
}

/// Waits until the pod's container waits because of its image, with these words.
fn refused(world: &World, name: &str, words: &str) -> Result<()> {
    until(words, SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0].clone();
        let events = world.kubectl.say(&format!("get events --field-selector involvedObject.name={name}"))?;
        let reason = status["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        let is_image = ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed"].contains(&reason);
        wait::yes(is_image && (status.to_string().contains(words) || events.contains(words)), || format!("{status}\n{events}"))
    })
    .map_err(|why| format!("{name}: {why}"))
}

/// A world whose only board has settings that name the world's addresses.
fn board(world: &mut World, settings: Value) -> Result<()> {
    let address = net::board(&world.slot, 1)?;
    world.agents.push(Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?);
    world.join()
}

/// Busybox with bytes that do not compress, in one layer: about `mib` MiB to fetch.
fn large(seed: u64, mib: usize) -> Result<builder::Image> {
    let bytes = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    images::busybox_of(&Platform::host(), &bytes, images::base().file("noise", 0o644, &noise(seed, mib)))
}

fn noise(seed: u64, mib: usize) -> Vec<u8> {
    let mut state = seed << 1 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take((mib << 20) / 8).flatten().collect()
}

/// What came in pieces is whole, and nothing of the way is left.
fn is_whole(world: &World, name: &str, seed: u64, mib: usize) -> Result<()> {
    let got = world.kubectl.run(&["exec", name, "--", "sha256sum", "/noise"])?;
    let want = Digest::of(&noise(seed, mib));
    wait::yes(got.starts_with(want.hex()), || format!("{name}: {got} instead of {want}"))?;
    for dir in ["images/partial", "images/tmp"] {
        let left = fs::read_dir(world.agents[0].data.join(dir)).map_err(|e| e.to_string())?.count();
        wait::yes(left == 0, || format!("{left} files are left in {dir}"))?;
    }
    Ok(())
}

#[test]
fn secrets_mirrors_and_certificates() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let (certificate, key) = authority(&world.slot.dir(), &address)?;
        let open = Registry::start(&world.slot, &address, 5001)?;
        let doors = [Door { passwords: Some(ANNA), tls: None }, Door { passwords: Some(BERT), tls: Some((&certificate, &key)) }];
        let first = Registry::with(&world.slot, &address, 5002, &doors[0])?;
        let second = Registry::with(&world.slot, &address, 5003, &doors[1])?;
        let work = world.slot.dir();
        let busybox = images::busybox()?;
        // As Docker Hub calls it, but only the mirror has it; the mirror asked first has nothing.
        Target::plain(&open.url(), &work).push("library/busybox", "1.36", &busybox)?;
        Target::plain(&first.url(), &work).with_user("anna:secret-a").push("team/app", "1", &large(1, 1)?)?;
        let at_second = Target::plain(&second.url(), &work).with_user("bert:secret-b").with_ca(&certificate);
        at_second.push("team/app", "1", &large(2, 1)?)?;
        let settings = json!({
            "insecureRegistries": [first.host],
            "registryMirrors": {"docker.io": [format!("http://{address}:9"), open.url()]},
            "registryCaFiles": [certificate],
        });
        board(world, settings)?;
        world.kubectl.apply(&pod("mirrored", "busybox:1.36", json!({})))?;
        ready(world, "mirrored")?;
        let status = world.kubectl.json("get pod mirrored")?["status"]["containerStatuses"][0].clone();
        let id = status["imageID"].as_str().unwrap_or_default();
        wait::yes(id.starts_with("docker.io/library/busybox@sha256:"), || status.to_string())?;

        let (in_first, in_second) = (format!("{}/team/app:1", first.host), format!("{}/team/app:1", second.host));
        world.kubectl.apply(&pod("stranger", &in_first, json!({})))?;
        refused(world, "stranger", "name a pull secret for it")?;
        for (name, host, user, password) in [
            ("for-first", &first.host, "anna", "secret-a"),
            ("for-second", &second.host, "bert", "secret-b"),
            ("wrong", &first.host, "anna", "secret-b"),
        ] {
            let who = format!("--docker-username={user} --docker-password={password}");
            world.kubectl.say(&format!("create secret docker-registry {name} --docker-server={host} {who}"))?;
        }
        let with = |names: &[&str]| json!({"imagePullSecrets": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
        world.kubectl.apply(&pod("mistaken", &in_first, with(&["wrong"])))?;
        refused(world, "mistaken", "401")?;
        // The secret of the other registry does not open this one.
        world.kubectl.apply(&pod("astray", &in_second, with(&["for-first"])))?;
        refused(world, "astray", "name a pull secret for it")?;
        world.kubectl.apply(&pod("member", &in_first, with(&["absent", "for-second", "for-first"])))?;
        ready(world, "member")?;
        // It is here now, and still not everybody's.
        world.kubectl.apply(&pod("later", &in_first, json!({})))?;
        refused(world, "later", "name a pull secret for it")?;
        // By way of the ServiceAccount, as most people do it; over TLS with a CA of one's own.
        let patch = r#"{"imagePullSecrets":[{"name":"for-second"}]}"#;
        world.kubectl.run(&["patch", "serviceaccount", "default", "-p", patch])?;
        world.kubectl.apply(&pod("second", &in_second, json!({})))?;
        ready(world, "second")
    });
}

/// A certificate that the board is told to trust for itself.
fn authority(dir: &Path, address: &str) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let (certificate, key) = (dir.join("own-ca.pem"), dir.join("own-ca.key"));
    let name = format!("subjectAltName=IP:{address}");
    let words = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1"];
    let files = [key.to_string_lossy(), certificate.to_string_lossy()];
    let more = ["-subj", "/CN=registry", "-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"];
    sh("openssl", words.iter().chain(&more).chain(&["-keyout", &files[0], "-out", &files[1]]))?;
    Ok((certificate, key))
}

/// A pull that is cut again and again, and a power cut in the middle: every byte is paid for once.
#[test]
fn cuts_cost_nothing() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let registry = Registry::start(&world.slot, &address, 5001)?;
        let valve_at = format!("{address}:5004");
        let valve = Valve::open(&valve_at, &registry.host)?;
        let work = world.slot.dir();
        for (name, seed) in [("cut", 11), ("off", 12)] {
            Target::plain(&registry.url(), &work).push(name, "1", &large(seed, 6)?)?;
        }
        board(world, json!({"insecureRegistries": [valve_at]}))?;
        // In the head of an answer, in the middle, a byte before the end of a piece.
        let before = valve.passed();
        valve.cut_after(&[150_001, 1_000_000, 16_384, 700_000, 2_000_000]);
        world.kubectl.apply(&pod("cut", &format!("{valve_at}/cut:1"), json!({})))?;
        ready(world, "cut")?;
        let (took, size) = (valve.passed() - before, (6 << 20) + 1_500_000);
        println!("{took} bytes through five cuts for an image of about {size}");
        wait::yes(valve.cuts_left() == 0, || format!("{} cuts never came", valve.cuts_left()))?;
        wait::yes(took > 6 << 20 && took < size, || format!("{took} bytes came: parts were fetched twice"))?;

        let before = valve.passed();
        valve.slow(Duration::from_millis(20));
        world.kubectl.apply(&pod("off", &format!("{valve_at}/off:1"), json!({})))?;
        until("half of the image", SOON, || {
            let took = valve.passed() - before;
            wait::yes(took > 2 << 20, || format!("{took} bytes"))
        })?;
        world.agents[0].power_cut()?;
        let at_cut = valve.passed() - before;
        wait::yes(at_cut < 6 << 20, || "it was too late for a cut".to_string())?;
        valve.slow(Duration::ZERO);
        world.agents[0].start(None)?;
        ready(world, "off")?;
        let took = valve.passed() - before;
        println!("{at_cut} bytes before the power cut, {took} in all");
        wait::yes(took < size + (1 << 20), || format!("{took} bytes in all: it began anew after {at_cut}"))?;
        is_whole(world, "cut", 11, 6)?;
        is_whole(world, "off", 12, 6)?;
        while_it_unpacks(world, &registry, &valve_at)
    });
}

/// The power goes while a layer of many files is half unpacked: the next agent clears that away and makes the whole.
fn while_it_unpacks(world: &mut World, registry: &Registry, host: &str) -> Result<()> {
    const FILES: usize = 20_000;
    let busybox = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let small = |layer: Layer, n: usize| layer.file(&format!("many/{n}"), 0o644, n.to_string().as_bytes());
    let many = (0..FILES).fold(images::base().directory("many", 0o755), small);
    let image = images::busybox_of(&Platform::host(), &busybox, many.file("noise", 0o644, &noise(13, 1)))?;
    Target::plain(&registry.url(), &world.slot.dir()).push("many", "1", &image)?;
    let (tmp, layers) = (world.agents[0].data.join("images/tmp"), world.agents[0].data.join("images/layers"));
    let count = |dir: &Path| fs::read_dir(dir).map_or(0, |all| all.flatten().count());
    let before = count(&layers);
    world.kubectl.apply(&pod("many", &format!("{host}/many:1"), json!({})))?;
    let half = || fs::read_dir(&tmp).into_iter().flatten().flatten().map(|e| count(&e.path().join("fs/many"))).max().unwrap_or(0);
    wait::until_every(Duration::from_millis(1), "a layer that is half unpacked", SOON, || {
        wait::yes(half() >= 10, || format!("{} files, {} layers after {before}", half(), count(&layers)))
    })?;
    world.agents[0].power_cut()?;
    let (at_cut, kept) = (half(), count(&layers));
    println!("{at_cut} files of {FILES} at the power cut");
    wait::yes((1..FILES).contains(&at_cut) && kept == before, || format!("{at_cut} files, {kept} layers: too late for a cut"))?;
    world.agents[0].start(None)?;
    ready(world, "many")?;
    let got = world.kubectl.run(&["exec", "many", "--", "sh", "-c", "ls /many | wc -l; cat /many/19999"])?;
    wait::yes(got.split_whitespace().eq(["20000", "19999"]), || got.clone())?;
    is_whole(world, "many", 13, 1)
}

/// `imagePullBytesPerSecond` and `imagePullsAtOnce`.
#[test]
fn limits_of_pulls() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let registry = Registry::start(&world.slot, &address, 5001)?;
        let work = world.slot.dir();
        for (name, seed) in [("a", 21), ("b", 22), ("c", 23), ("d", 24)] {
            Target::plain(&registry.url(), &work).push(name, "1", &large(seed, 2)?)?;
        }
        let settings = json!({"insecureRegistries": [registry.host], "imagePullBytesPerSecond": 512 << 10});
        board(world, settings)?;
        let both = |world: &World, names: [&str; 2]| -> Result<usize> {
            let begun = Instant::now();
            // At one time: where all is slow, the first would be here before the second is asked for.
            let pods = names.map(|name| pod(name, &format!("{}/{name}:1", registry.host), json!({})));
            world.kubectl.apply(&pods.join("\n"))?;
            let mut most = 0;
            until("both pods", SOON, || {
                // Downloads under way, each of one layer.
                let partial = fs::read_dir(world.agents[0].data.join("images/partial")).map_err(|e| e.to_string())?;
                let sizes = partial.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.len() > 0 && m.len() < 2 << 20);
                most = most.max(sizes.count());
                let images = world.agents[0].data.join("images/layers");
                let pods = world.agents[0].named("sleep").len();
                wait::yes(pods >= 2 && images.exists(), || format!("{pods} pods"))
            })?;
            // Two layers of more than 2 MiB at half a MiB a second: never faster.
            wait::yes(begun.elapsed() >= Duration::from_secs(8), || format!("both came in {:?}", begun.elapsed()))?;
            world.kubectl.say("delete pods --all")?;
            Ok(most)
        };
        let most = both(world, ["a", "b"])?;
        wait::yes(most == 2, || format!("{most} at a time: pulls wait for each other"))?;
        world.agents[0].power_cut()?;
        world.agents[0].configure(&json!({"imagePullsAtOnce": 1}))?;
        world.agents[0].start(None)?;
        world.nodes_ready(SOON)?;
        let most = both(world, ["c", "d"])?;
        wait::yes(most == 1, || format!("{most} at a time, and one was allowed"))
    });
}

/// An index with ARM's variants, layers in zstd, and images that have to be signed.
#[test]
fn indexes_zstd_and_signatures() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let registry = Registry::start(&world.slot, &address, 5001)?;
        let target = Target::plain(&registry.url(), &world.slot.dir());
        let (private, public) = (world.slot.dir().join("cosign.key"), world.slot.dir().join("cosign.pub"));
        let (private, public) = (private.to_string_lossy().into_owned(), public.to_string_lossy().into_owned());
        sh("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private])?;
        sh("openssl", ["ec", "-in", &private, "-pubout", "-out", &public])?;
        let policies = json!([{"images": format!("{}/signed/*", registry.host), "cosignKeys": [public]}]);
        board(world, json!({"insecureRegistries": [registry.host], "imagePolicies": policies}))?;

        target.push_manifest_of_many("many", "1")?;
        world.kubectl.apply(&pod("many", &format!("{}/many:1", registry.host), json!({})))?;
        ready(world, "many")?;
        let got = world.kubectl.say("exec many -- cat /which")?;
        let own = Platform::host();
        wait::yes(got == format!("{} {}", own.architecture, own.variant.unwrap_or_default()), || got.clone())?;

        // As `docker push` has them, and a layer that nobody has packed.
        target.push_docker("docker", "1")?;
        world.kubectl.apply(&pod("docker", &format!("{}/docker:1", registry.host), json!({})))?;
        ready(world, "docker")?;
        let got = world.kubectl.say("exec docker -- cat /plain /packed")?;
        wait::yes(got == "plainpacked", || got.clone())?;

        target.push_zstd("packed", "1", &world.slot.dir())?;
        world.kubectl.apply(&pod("packed", &format!("{}/packed:1", registry.host), json!({})))?;
        ready(world, "packed")?;

        let image = large(31, 1)?;
        target.push("signed/app", "1", &image)?;
        let name = format!("{}/signed/app:1", registry.host);
        world.kubectl.apply(&pod("signed", &name, json!({})))?;
        refused(world, "signed", "cosign sign")?;
        target.sign("signed/app", &image, &private, &world.slot.dir())?;
        // It starts by itself once it is signed.
        ready(world, "signed")
    });
}

trait More {
    fn push_manifest_of_many(&self, repository: &str, tag: &str) -> Result<()>;
    fn push_zstd(&self, repository: &str, tag: &str, work: &Path) -> Result<()>;
    fn push_docker(&self, repository: &str, tag: &str) -> Result<()>;
    fn sign(&self, repository: &str, image: &builder::Image, key: &str, work: &Path) -> Result<()>;
}

impl More for Target {
    /// One tag for seven platforms; only this machine's has a program that runs here.
    fn push_manifest_of_many(&self, repository: &str, tag: &str) -> Result<()> {
        let busybox = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
        let mut entries = Vec::new();
        let all = [
            ("arm", Some("v5")),
            ("arm", Some("v6")),
            ("arm", Some("v7")),
            ("arm64", Some("v8")),
            ("riscv64", None),
            ("amd64", None),
            ("386", None),
        ];
        for (architecture, variant) in all {
            let platform = Platform::new("linux", architecture, variant);
            let own = Platform::host();
            let is_ours = architecture == own.architecture && (variant.is_none() || variant == own.variant.as_deref());
            let which = format!("{architecture} {}", if is_ours { own.variant.clone().unwrap_or_default() } else { "?".into() });
            let more = images::base().file("which", 0o644, which.as_bytes());
            let image = images::busybox_of(&platform, if is_ours { &busybox } else { b"not for here" }, more)?;
            self.push(repository, &image.manifest.descriptor.digest.to_string(), &image)?;
            let mut entry = image.manifest.descriptor.clone();
            entry.platform = Some(platform);
            entries.push(entry);
        }
        let index = json!({"schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": entries});
        self.push_manifest(repository, tag, manifest::OCI_INDEX, index.to_string().as_bytes())
    }

    fn push_zstd(&self, repository: &str, tag: &str, work: &Path) -> Result<()> {
        let image = images::busybox()?;
        let plain = work.join("layer.tar.gz");
        fs::write(&plain, &image.layers[0].bytes).map_err(|e| e.to_string())?;
        let (gz, tar) = (plain.to_string_lossy().into_owned(), work.join("layer.tar").to_string_lossy().into_owned());
        sh("gzip", ["-dk", &gz])?;
        sh("zstd", ["-q", "-19", &tar])?;
        let bytes = fs::read(format!("{tar}.zst")).map_err(|e| e.to_string())?;
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+zstd", bytes);
        let mut document: Value = serde_json::from_slice(&image.manifest.bytes).map_err(|e| e.to_string())?;
        document["layers"] = json!([layer.descriptor]);
        let manifest = Blob::new(manifest::OCI_MANIFEST, document.to_string().into_bytes());
        self.push(repository, tag, &builder::Image { manifest, config: image.config, layers: vec![layer] })
    }

    /// A manifest list with one image of Docker's schema 2, its layers with Docker's types, one of them plain tar.
    fn push_docker(&self, repository: &str, tag: &str) -> Result<()> {
        let plain = Layer::new().file("plain", 0o644, b"plain").tar();
        let busybox = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
        let base = images::busybox_of(&Platform::host(), &busybox, images::base().file("packed", 0o644, b"packed"))?;
        let mut config: Value = serde_json::from_slice(&base.config.bytes).map_err(|e| e.to_string())?;
        config["rootfs"]["diff_ids"].as_array_mut().ok_or("no layers")?.push(json!(Digest::of(&plain)));
        let config = Blob::new(manifest::DOCKER_CONFIG, config.to_string().into_bytes());
        let kind = |end: &str| format!("application/vnd.docker.image.rootfs.diff.tar{end}");
        let layers = [Blob::new(&kind(".gzip"), base.layers[0].bytes.clone()), Blob::new(&kind(""), plain)];
        let of = |blobs: &[Blob]| blobs.iter().map(|b| json!(b.descriptor)).collect::<Vec<_>>();
        let document = json!({"schemaVersion": 2, "mediaType": manifest::DOCKER_MANIFEST, "config": config.descriptor,
            "layers": of(&layers)});
        let one = Blob::new(manifest::DOCKER_MANIFEST, document.to_string().into_bytes());
        for blob in layers.iter().chain([&config]) {
            self.push_blob(repository, blob)?;
        }
        self.push_manifest(repository, &one.descriptor.digest.to_string(), manifest::DOCKER_MANIFEST, &one.bytes)?;
        let mut entry = one.descriptor.clone();
        entry.platform = Some(Platform::host());
        let list = json!({"schemaVersion": 2, "mediaType": manifest::DOCKER_INDEX, "manifests": [entry]});
        self.push_manifest(repository, tag, manifest::DOCKER_INDEX, list.to_string().as_bytes())
    }

    /// What `cosign sign --key` puts beside an image.
    fn sign(&self, repository: &str, image: &builder::Image, key: &str, work: &Path) -> Result<()> {
        use base64::Engine as _;
        let digest = &image.manifest.descriptor.digest;
        let payload = json!({"critical": {"identity": {"docker-reference": ""}, "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature"}, "optional": null});
        let payload = Blob::new("application/vnd.dev.cosign.simplesigning.v1+json", payload.to_string().into_bytes());
        let (text, signature) = (work.join("payload"), work.join("payload.sig"));
        fs::write(&text, &payload.bytes).map_err(|e| e.to_string())?;
        sh("openssl", ["dgst", "-sha256", "-sign", key, "-out", &signature.to_string_lossy(), &text.to_string_lossy()])?;
        let signature = fs::read(signature).map_err(|e| e.to_string())?;
        let mut layer = payload.descriptor.clone();
        let text = base64::engine::general_purpose::STANDARD.encode(signature);
        layer.annotations.insert("dev.cosignproject.cosign/signature".into(), text);
        let config = Blob::new(manifest::OCI_CONFIG, b"{}".to_vec());
        let kind = manifest::OCI_MANIFEST;
        let document = json!({"schemaVersion": 2, "mediaType": kind, "config": config.descriptor, "layers": [layer]});
        self.push_blob(repository, &payload)?;
        self.push_blob(repository, &config)?;
        let tag = format!("sha256-{}.sig", digest.hex());
        self.push_manifest(repository, &tag, manifest::OCI_MANIFEST, document.to_string().as_bytes())
    }
}

/// A full disk takes what no pod wants and its registry still has; never what a pod wants or what could not be pulled again.
#[test]
fn a_full_disk_takes_the_right_images() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let registry = Registry::start(&world.slot, &address, 5001)?;
        let lost = Registry::start(&world.slot, &address, 5002)?;
        let work = world.slot.dir();
        let there = Target::plain(&registry.url(), &work);
        there.push("spare", "1", &large(41, 6)?)?;
        there.push("wanted", "1", &large(42, 3)?)?;
        Target::plain(&lost.url(), &work).push("last", "1", &large(43, 3)?)?;
        let agent_data = world.slot.dir().join("board-1");
        fs::create_dir_all(&agent_data).map_err(|e| e.to_string())?;
        sh("mount", ["-t", "tmpfs", "-o", "size=64m", "limpet-e2e", &agent_data.to_string_lossy()])?;
        let settings = json!({"insecureRegistries": [registry.host, lost.host], "evictionPressureTransitionSeconds": 1});
        board(world, settings)?;
        let all = [("spare", &registry.host), ("wanted", &registry.host), ("last", &lost.host)];
        for (name, host) in all {
            world.kubectl.apply(&pod(name, &format!("{host}/{name}:1"), json!({})))?;
            ready(world, name)?;
        }
        world.kubectl.say("delete pod spare last")?;
        drop(lost);
        until("all three in the node's status", Duration::from_secs(30), || {
            let here = fs::read_dir(agent_data.join("images/layers")).map_err(|e| e.to_string())?.count();
            wait::yes(here >= 3, || format!("{here} layers"))
        })?;
        // All but 4 MiB.
        let free = free_bytes(&agent_data)?;
        let filler = vec![b'x'; usize::try_from(free.saturating_sub(4 << 20)).unwrap_or(0)];
        fs::write(agent_data.join("filler"), filler).map_err(|e| e.to_string())?;
        until("room", SOON, || {
            let free = free_bytes(&agent_data)?;
            wait::yes(free > 6 << 20, || format!("{free} bytes are free"))
        })?;
        until("the node's images", SOON, || {
            let text = world.kubectl.json("get node board-1")?["status"]["images"].to_string();
            wait::yes(!text.contains("/spare:1") && text.contains("/wanted:1") && text.contains("/last:1"), || text)
        })?;
        ready(world, "wanted")?;
        fs::remove_file(agent_data.join("filler")).map_err(|e| e.to_string())?;
        // Its registry is no more; the board still has it.
        world.kubectl.apply(&pod("again", &format!("{address}:5002/last:1"), json!({})))?;
        ready(world, "again")
    });
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let text = sh("df", ["--output=avail", "-B1", &dir.to_string_lossy()])?;
    text.lines().nth(1).and_then(|l| l.trim().parse().ok()).ok_or(text)
}

#[test]
fn the_same_image_again_is_not_fetched() {
    test(0, &json!({}), |world| {
        let address = world.hub.address.clone();
        let registry = Registry::start(&world.slot, &address, 5001)?;
        let valve_at = format!("{address}:5004");
        let valve = Valve::open(&valve_at, &registry.host)?;
        let target = Target::plain(&registry.url(), &world.slot.dir());
        let shared = || Layer::new().file("shared", 0o644, &vec![7; 3 << 20]);
        let busybox = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
        for (tag, text) in [("1", "one"), ("2", "two")] {
            let run = Execution { cmd: vec!["/sleep".into(), "100000".into()], ..Execution::default() };
            let top = Layer::new().file("text", 0o644, text.as_bytes());
            let base = images::base().file("busybox", 0o755, &busybox).symlink("sleep", "busybox");
            let image = builder::image(&Platform::host(), run, vec![base, shared(), top]).map_err(|e| e.to_string())?;
            target.push("app", tag, &image)?;
        }
        board(world, json!({"insecureRegistries": [valve_at]}))?;
        let start = |name: &str, tag: &str, policy: &str| {
            let image = format!("{valve_at}/app:{tag}");
            let spec = json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": policy}]});
            world.kubectl.apply(&pod(name, "", spec))?;
            ready(world, name)
        };
        start("one", "1", "IfNotPresent")?;
        let first = valve.passed();
        start("two", "2", "IfNotPresent")?;
        let second = valve.passed() - first;
        let before = valve.passed();
        start("again", "1", "Always")?;
        let again = valve.passed() - before;
        let before = valve.passed();
        start("kept", "1", "IfNotPresent")?;
        let kept = valve.passed() - before;
        println!("{first} bytes for the first, {second} for one that shares two layers, {again} with Always, {kept} with IfNotPresent");
        wait::yes(second < 10_000 && again < 1_000 && kept == 0, || format!("{second} {again} {kept}"))
    });
}
