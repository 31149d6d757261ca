//! Writing, rotating, reading back.

use super::{write::{Rest, Writer}, *};
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
const BIG: Limits = Limits { file_bytes_max: 1 << 20, files_max: 3 };

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
    let mut writer = Writer::open(&path, Limits { file_bytes_max: 1000, files_max: 3 });
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
fn following_sees_all_lines_across_rotations_until_the_end() {
    let dir = Dir::new("follow");
    let path = dir.0.join("0.log");
    block(async {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let logs = Logs::default();
        let sources = Sources { stdout: Some(reader), ..Sources::default() };
        logs.start("c", &path, Limits { file_bytes_max: 2000, files_max: 50 }, sources);
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

#[test]
fn a_container_without_pipes_is_not_waited_for() {
    let dir = Dir::new("adopted");
    block(async {
        let logs = Logs::default();
        logs.start("c", &dir.0.join("0.log"), BIG, Sources::default());
        assert!(!logs.is_open("c"));
        logs.drain("c", std::time::Duration::MAX).await;
    });
}
