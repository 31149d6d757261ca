//! CRI lines as `kubectl logs` shows them.
//!
//! In: lines `<rfc3339nano> stdout F text`, options of the request. Out: text.
//! Never: fails; what is no CRI line is passed over.

use jiff::Timestamp;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<usize>,
    pub limit_bytes: Option<usize>,
}

pub fn select(lines: &[u8], options: &Options) -> Vec<u8> {
    let mut shown: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(stamp), Some(_), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let at = std::str::from_utf8(stamp).ok().and_then(|s| s.parse::<Timestamp>().ok());
        if options.since.is_some_and(|since| at.is_none_or(|at| at < since)) {
            continue;
        }
        let partial = tag == b"P";
        let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        match shown.last_mut().filter(|_| open) {
            Some(last) => last.extend_from_slice(text),
            None if options.timestamps => shown.push([stamp, b" ", text].concat()),
            None => shown.push(text.to_vec()),
        }
        open = partial;
    }
    let from = options.tail_lines.map_or(0, |n| shown.len().saturating_sub(n));
    let mut out = shown[from..].concat();
    out.truncate(options.limit_bytes.unwrap_or(usize::MAX));
    out
}

/// Stands where lines are missing; stamped as the first line after them.
pub fn lost_line(after: &[u8], lost: u64) -> Vec<u8> {
    let stamp = after.split(|b| *b == b' ').next().and_then(|s| std::str::from_utf8(s).ok()).unwrap_or_default();
    let stamp = if stamp.parse::<Timestamp>().is_ok() { stamp } else { "1970-01-01T00:00:00Z" };
    format!("{stamp} stderr F [limpet: {lost} lines are missing here: the board could keep no more while the hub was away]\n")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_for_a_living_log() {
        let lines = b"2026-11-25T10:00:00.1Z stdout F one\n2026-11-25T10:00:01.1Z stderr P tw\n\
            2026-11-25T10:00:01.2Z stderr F o\nnonsense\n2026-11-25T10:00:02.1Z stdout F three\n";
        let show = |options: Options| String::from_utf8(select(lines, &options)).unwrap();
        assert_eq!(show(Options::default()), "one\ntwo\nthree\n");
        assert_eq!(show(Options { tail_lines: Some(2), ..Options::default() }), "two\nthree\n");
        assert_eq!(show(Options { limit_bytes: Some(5), ..Options::default() }), "one\nt");
        let since = Some("2026-11-25T10:00:02Z".parse().unwrap());
        let stamped = show(Options { since, timestamps: true, ..Options::default() });
        assert_eq!(stamped, "2026-11-25T10:00:02.1Z three\n");
        let lost = lost_line(lines, 7);
        assert!(lost.starts_with(b"2026-11-25T10:00:00.1Z stderr F [limpet: 7 lines"));
    }
}
