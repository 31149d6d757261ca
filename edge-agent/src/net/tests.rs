//! Ranges, leases and the encoder. The kernel's side is in `runtime/tests`, in network namespaces of its own.

use super::ipam::Ipam;
use super::netlink::{Attributes, Message};
use super::*;

#[test]
fn ranges_are_read_and_refused() {
    let cidr: Cidr = "10.42.3.9/24".parse().unwrap();
    assert_eq!((cidr.to_string().as_str(), cidr.gateway().to_string().as_str()), ("10.42.3.0/24", "10.42.3.1"));
    assert!(cidr.contains("10.42.3.255".parse().unwrap()) && !cidr.contains("10.42.4.0".parse().unwrap()));
    for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0/8", "::/0"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
}

#[test]
fn leases_are_kept_returned_and_run_out() {
    let dir = std::env::temp_dir().join(format!("limpet-ipam-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let ipam = || Ipam::new(dir.clone(), "10.1.0.0/29".parse().unwrap());
    let first = ipam().lease("pod-a").unwrap();
    assert_eq!(first.to_string(), "10.1.0.2");
    assert_eq!(ipam().lease("pod-a").unwrap(), first, "the same pod keeps its address");
    let others: Vec<_> = (0..4).map(|i| ipam().lease(&format!("pod-{i}")).unwrap()).collect();
    assert!(!others.contains(&first));
    let full = ipam().lease("pod-x").unwrap_err();
    assert!(full.to_string().contains("no free pod address"), "{full}");
    ipam().release("pod-0").unwrap();
    ipam().release("pod-0").unwrap();
    assert_eq!(ipam().lease("pod-x").unwrap(), others[0]);
    let wider = Ipam::new(dir.clone(), "10.9.0.0/24".parse().unwrap());
    assert_eq!(wider.leased("pod-a"), None, "a lease of an older range does not count");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nested_attributes_have_true_lengths() {
    let mut message = Message::new(1, 0, &[9; 4]);
    message.nest(7, |inner| {
        inner.text(1, "abc").u32(2, 5);
    });
    let bytes = message.into_bytes();
    let outer: Vec<_> = Attributes(&bytes[20..]).collect();
    assert_eq!((outer.len(), outer[0].0), (1, 7));
    let inner: Vec<_> = Attributes(outer[0].1).collect();
    assert_eq!(inner, [(1, &b"abc\0"[..]), (2, &5u32.to_ne_bytes()[..])]);
    for len in 0..bytes.len() {
        let _ = Attributes(&bytes[..len]).count();
    }
}
