#!/bin/sh
# RUSTC_WRAPPER for static builds on boards: rustc with two corrections that its callers cannot express. A wrapper that was
# there before (a cache, a limit) stays, inside: LIMPET_RUSTC_WRAPPER.
#
# 1. libcontainer 0.7.0 does not compile where the kernel's file system types are 32 bits wide: one constant of its
#    src/tty.rs says u64 for every musl. The file is compiled with the type that the constant is compared with; nothing
#    else changes, and nothing is changed on disk but a copy beside the build. The next release should make this void:
#    then `constant` below is not found and this script fails, so that it is removed.
# 2. std's panic_abort must be compiled with panic=abort even where std unwinds.
set -eu
[ -z "${LIMPET_RUSTC_WRAPPER:-}" ] || set -- "$LIMPET_RUSTC_WRAPPER" "$@"
case " $* " in
*" --crate-name panic_abort "*) exec "$@" -Cpanic=abort ;;
*" --crate-name libcontainer "*" --target arm"*) ;;
*) exec "$@" ;;
esac
constant='const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;'
out=
for word in "$@"; do
    case $word in
    */libcontainer-0.7.0/src/lib.rs) source=${word%/src/lib.rs} ;;
    esac
    [ "$out" != next ] || out=$word
    [ "$word" != --out-dir ] || out=next
done
copy=$out/limpet-libcontainer-$$
trap 'rm -rf "$copy"' EXIT
cp -R "$source" "$copy"
grep -qF "$constant" "$copy/src/tty.rs" || { echo "rustc-wrapper.sh: libcontainer has changed; see the top of this file" >&2; exit 1; }
sed -i "s/$constant/const DEVPTS_SUPER_MAGIC: libc::c_ulong = 0x1cd1;/" "$copy/src/tty.rs"
for word in "$@"; do
    shift
    case $word in
    */libcontainer-0.7.0/src/lib.rs) set -- "$@" "$copy/src/lib.rs" ;;
    *) set -- "$@" "$word" ;;
    esac
done
"$@"
