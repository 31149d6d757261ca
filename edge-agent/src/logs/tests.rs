//! Writing, rotating, reading back.

use super::{write::{Rest, Writer}, *};
use std::os::fd::AsFd;
use tokio::sync::mpsc;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("limpet-logs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NS: u128 = 1_795_431_600_123_456_789;
const BIG: Limits = Limits { file_bytes_max: 1 << 20, files_max: 3, kept: false };

async fn text(path: &Path, options: ReadOptions) -> String {
    let (tell, mut hear) = mpsc::channel(1000);
    read(path, "none", &Logs::default(), &options, &tell).await.unwrap();
    drop(tell);
    let mut all = Vec::new();
    while let Some(chunk) = hear.recv().await {
        all.extend(chunk);
    }
    String::from_utf8(all).unwrap()
}

fn block<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

#[test]
fn lines_are_stamped_and_long_ones_are_cut() {
    let dir = Dir::new("lines");
    let path = dir.0.join("0.log");
    let mut writer = Writer::open(&path, BIG);
    let mut rest = Rest::default();
    writer.chunk("stdout", NS, &mut rest, b"hel");
    writer.chunk("stdout", NS, &mut rest, b"lo\n\nlast");
    writer.finish("stdout", NS, &mut rest);
    let raw = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        raw,
        "2026-11-23T11:00:00.123456789Z stdout F hello\n2026-11-23T11:00:00.123456789Z stdout F \n\
         2026-11-23T11:00:00.123456789Z stdout P last\n"
    );
    let long = vec![b'x'; LINE_BYTES_MAX * 2 + 5];
    writer.chunk("stderr", NS, &mut rest, &long);
    writer.chunk("stderr", NS, &mut rest, b"\nend\n");
    let got = block(text(&path, ReadOptions::default()));
    assert_eq!(got, format!("hello\n\nlast{}\nend\n", "x".repeat(long.len())));
}

#[test]
fn rotation_keeps_so_many_files() {
    let dir = Dir::new("rotate");
    let path = dir.0.join("0.log");
    let mut writer = Writer::open(&path, Limits { file_bytes_max: 1000, files_max: 3, kept: false });
    let mut rest = Rest::default();
    for n in 0..200 {
        writer.chunk("stdout", NS, &mut rest, format!("line {n}\n").as_bytes());
    }
    let files = files_of(&path);
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|f| std::fs::metadata(f).unwrap().len() <= 1000));
    let got = block(text(&path, ReadOptions::default()));
    assert!(got.ends_with("line 198\nline 199\n"));
    let tail = block(text(&path, ReadOptions { tail_lines: Some(30), ..ReadOptions::default() }));
    let want: String = (170..200).map(|n| format!("line {n}\n")).collect();
    assert_eq!(tail, want, "over the edge of files");
}

#[test]
fn tail_since_limit_and_stamps() {
    let dir = Dir::new("options");
    let path = dir.0.join("0.log");
    let mut writer = Writer::open(&path, BIG);
    let mut rest = Rest::default();
    for n in 0..5u128 {
        writer.chunk("stdout", NS + n * 1_000_000_000, &mut rest, format!("{n}\n").as_bytes());
    }
    let base = (NS / 1_000_000) as u64;
    for (options, want) in [
        (ReadOptions { tail_lines: Some(2), ..Default::default() }, "3\n4\n"),
        (ReadOptions { tail_lines: Some(0), ..Default::default() }, ""),
        (ReadOptions { tail_lines: Some(99), ..Default::default() }, "0\n1\n2\n3\n4\n"),
        (ReadOptions { since_ms: Some(base + 3000), ..Default::default() }, "3\n4\n"),
        (ReadOptions { limit_bytes: Some(3), ..Default::default() }, "0\n1"),
        (
            ReadOptions { tail_lines: Some(1), timestamps: true, ..Default::default() },
            "2026-11-23T11:00:04.123456789Z 4\n",
        ),
    ] {
        assert_eq!(block(text(&path, options.clone())), want, "{options:?}");
    }
}

#[test]
fn the_end_of_a_log_as_one_text() {
    let dir = Dir::new("end");
    let path = dir.0.join("0.log");
    assert_eq!(tail_text(&path, 100, 80), "");
    let mut writer = Writer::open(&path, Limits { file_bytes_max: 1000, files_max: 3, kept: false });
    let mut rest = Rest::default();
    for n in 0..200 {
        writer.chunk("stdout", NS, &mut rest, format!("line {n}\n").as_bytes());
    }
    let lines = |from: usize| (from..200).map(|n| format!("line {n}\n")).collect::<String>();
    for (bytes_max, lines_max, want) in [
        (4096, 1, lines(199)),
        (4096, 2, lines(198)),
        (4096, 30, lines(170)),
        (4096, 0, String::new()),
        (7, 80, "ne 199\n".to_string()),
    ] {
        assert_eq!(tail_text(&path, bytes_max, lines_max), want, "{bytes_max} bytes, {lines_max} lines, over the edge of files");
    }
    let path = dir.0.join("1.log");
    let mut writer = Writer::open(&path, BIG);
    writer.chunk("stderr", NS, &mut rest, format!("{}end", "x".repeat(16_000)).as_bytes());
    writer.finish("stderr", NS, &mut rest);
    assert_eq!(tail_text(&path, 5, 80), "xxend", "one long line");
}

#[test]
fn following_sees_all_lines_across_rotations_until_the_end() {
    let dir = Dir::new("follow");
    let path = dir.0.join("0.log");
    block(async {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let logs = Logs::default();
        let sources = Sources { stdout: Some(reader), ..Sources::default() };
        logs.start("c", &path, Limits { file_bytes_max: 2000, files_max: 50, kept: false }, sources, Begin::Now);
        let (tell, mut hear) = mpsc::channel(4);
        let (l, p) = (logs.clone(), path.clone());
        let following = tokio::spawn(async move {
            read(&p, "c", &l, &ReadOptions { follow: true, ..Default::default() }, &tell).await
        });
        let mut file = std::fs::File::from(writer);
        let mut got = Vec::new();
        for n in 0..300 {
            std::io::Write::write_all(&mut file, format!("line {n}\n").as_bytes()).unwrap();
            tokio::task::yield_now().await;
            while let Ok(chunk) = hear.try_recv() {
                got.extend(chunk);
            }
        }
        drop(file);
        while let Some(chunk) = hear.recv().await {
            got.extend(chunk);
        }
        following.await.unwrap().unwrap();
        let want: String = (0..300).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(got).unwrap(), want);
        assert!(!logs.is_open("c"));
    });
}

/// What the kernel cannot watch ends at once: nobody waits for its end for ever.
#[test]
fn who_cannot_be_heard_has_ended() {
    let dir = Dir::new("deaf");
    block(async {
        let logs = Logs::default();
        std::fs::write(dir.0.join("plain"), "a file is no pipe").unwrap();
        let plain = std::fs::File::open(dir.0.join("plain")).unwrap();
        let sources = Sources { stdout: Some(plain.into()), ..Sources::default() };
        logs.start("deaf", &dir.0.join("deaf/0.log"), BIG, sources, Begin::Now);
        assert!(!logs.is_open("deaf") && logs.places() == 0);
    });
}

/// All are heard by one task: one that always has more to say keeps nobody from being heard, and places are given again.
#[test]
fn many_are_heard_whoever_shouts() {
    let dir = Dir::new("many");
    block(async {
        let logs = Logs::default();
        let file_of = |id: &str| dir.0.join(format!("{id}/0.log"));
        let begin = |id: &str| {
            let (out, to_out) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
            let (err, to_err) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
            let sources = Sources { stdout: Some(out), stderr: Some(err), ..Sources::default() };
            logs.start(id, &file_of(id), BIG, sources, Begin::Now);
            (to_out, to_err)
        };
        let shouts = begin("shouts");
        for round in 0..3 {
            let ids: Vec<String> = (0..40).map(|n| format!("{round}-{n}")).collect();
            let pipes: Vec<_> = ids.iter().map(|id| begin(id)).collect();
            for (id, (out, err)) in ids.iter().zip(&pipes) {
                nix::unistd::write(out, format!("out of {id}\n").as_bytes()).unwrap();
                nix::unistd::write(err, format!("err of {id}\n").as_bytes()).unwrap();
            }
            drop(pipes);
            while ids.iter().any(|id| logs.is_open(id)) {
                // Its pipe is never empty.
                while nix::unistd::write(&shouts.0, &[b'x'; 4096]).is_ok() {}
                tokio::task::yield_now().await;
            }
            for id in ids {
                let said = text(&file_of(&id), ReadOptions::default()).await;
                let mut lines: Vec<&str> = said.lines().collect();
                lines.sort_unstable();
                assert_eq!(lines, [format!("err of {id}"), format!("out of {id}")]);
            }
            assert_eq!(logs.places(), 2, "only who shouts has places after round {round}");
        }
        drop(shouts);
        logs.drain("shouts", std::time::Duration::MAX).await;
        assert_eq!(logs.places(), 0);
    });
}

#[test]
fn a_container_without_pipes_is_not_waited_for() {
    let dir = Dir::new("adopted");
    block(async {
        let logs = Logs::default();
        logs.start("c", &dir.0.join("0.log"), BIG, Sources::default(), Begin::Now);
        assert!(!logs.is_open("c"));
        logs.drain("c", std::time::Duration::MAX).await;
    });
}

/// An agent that is killed between any two steps, again and again, and its successors.
#[test]
fn a_killed_agent_loses_no_byte_and_writes_none_twice() {
    use super::spool::Spool;
    let dir = Dir::new("killed");
    for seed in 0..60u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let spools = dir.0.join(format!("spools-{seed}"));
        let path = dir.0.join(format!("{seed}/0.log"));
        let limits = Limits { file_bytes_max: 500 + roll(3000), files_max: 10_000, kept: false };
        let pipes = [0, 1].map(|_| nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap());
        let mut spool = Spool::begin(&spools, "c").unwrap();
        let mut writer = Writer::open(&path, limits);
        spool.kept(0, 0, writer.place()).unwrap();
        let mut rests = [Rest::default(), Rest::default()];
        let (mut said, mut buffer) = ([0u32; 2], vec![0; 700]);
        for _ in 0..400 {
            let lane = roll(2) as usize;
            for _ in 0..roll(4) {
                // Some writes end in the middle of a line.
                let line = format!("lane {lane} line {} {}", said[lane], "x".repeat(roll(60) as usize));
                let (head, tail) = line.split_at(roll(line.len() as u64) as usize);
                nix::unistd::write(&pipes[lane].1, head.as_bytes()).unwrap();
                if roll(3) == 0 {
                    let _ = spool.take_in(lane, pipes[lane].0.as_fd(), 700);
                }
                nix::unistd::write(&pipes[lane].1, format!("{tail}\n").as_bytes()).unwrap();
                said[lane] += 1;
            }
            let _ = spool.take_in(lane, pipes[lane].0.as_fd(), 700);
            let last_step = roll(6);
            if last_step > 0 {
                let n = spool.next(lane, &mut buffer).unwrap();
                writer.chunk(["stdout", "stderr"][lane], NS, &mut rests[lane], &buffer[..n]);
            }
            if last_step > 1 {
                spool.kept(lane, rests[lane].len(), writer.place()).unwrap();
            }
            if last_step > 2 && roll(2) == 0 {
                spool.rest(lane).unwrap();
            }
            if last_step < 4 {
                spool = Spool::resume(&spools, "c").unwrap();
                writer = Writer::open(&path, limits);
                writer.back_to(spool.place());
                spool.kept(0, 0, writer.place()).unwrap();
                rests = [Rest::default(), Rest::default()];
            }
        }
        for lane in [0, 1] {
            loop {
                let moved = spool.take_in(lane, pipes[lane].0.as_fd(), 700).unwrap_or(0);
                let n = spool.next(lane, &mut buffer).unwrap();
                writer.chunk(["stdout", "stderr"][lane], NS, &mut rests[lane], &buffer[..n]);
                spool.kept(lane, rests[lane].len(), writer.place()).unwrap();
                if moved + n == 0 {
                    break;
                }
            }
        }
        let got = block(text(&path, ReadOptions::default()));
        for lane in [0, 1] {
            let prefix = format!("lane {lane} line ");
            let numbers: Vec<u32> = got
                .lines()
                .filter_map(|l| l.strip_prefix(&prefix)?.split(' ').next()?.parse().ok())
                .collect();
            assert_eq!(numbers, (0..said[lane]).collect::<Vec<_>>(), "seed {seed}, lane {lane}");
        }
    }
}
