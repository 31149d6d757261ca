#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER (.cargo/config.toml): of this workspace's programs, those for boards are static in debug builds, too, as
# boards get them. Only their last step differs: an emulated board's programs need no second build of everything below them.
# In: rustc and its words. Out: rustc, with two words more for those programs, built for this machine without optimising and not as
# tests. Never: other crates, other targets, or a machine that has no static C library.
set -eu
case " $* " in
*" --crate-name limpet_agent "*" --crate-type bin "* | *" --crate-name limpet_init "*" --crate-type bin "*) ;;
*) exec "$@" ;;
esac
case " $* " in
*" --test "* | *" --target "* | *" -C opt-level="*) exec "$@" ;;
esac
# A name without a path means: there is none.
case $(cc -print-file-name=libc.a 2>/dev/null) in
/*) exec "$@" -C target-feature=+crt-static -C relocation-model=static ;;
*) exec "$@" ;;
esac
