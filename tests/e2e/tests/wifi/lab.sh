#!/lab/busybox sh
# The other side of the air: before the board's first process takes over, an access point gets the machine's cable and, once the
# board has loaded its drivers, one of the two radios, in a network namespace of its own. The board is left with the other radio.
b=/lab/busybox
[ "$1" = second ] || exec /lab/limpet-init
tool() { name=$1; shift; /lab/tools/lib/ld.so --library-path /lab/tools/lib "/lab/tools/bin/$name" "$@"; }
say() { echo "<3>lab: $*" > /dev/kmsg; }

access_point() {
    $b mount -t sysfs sysfs /sys
    echo > /lab/apart
    until [ -e /lab/given ]; do $b sleep 0.1; done
    tool ip link add br0 type bridge
    tool ip link set br0 up
    tool ip link set eth0 master br0
    tool ip link set eth0 up
    say "the access point starts"
    tool hostapd -t /lab/hostapd.conf 2>&1 | while read -r line; do say "$line"; done
    say "the access point has ended"
}

if [ "$2" = access-point ]; then
    access_point
    exit
fi
$b mkdir -p /lab/tools
$b mount -t squashfs -o loop,ro /lab/tools.squashfs /lab/tools || say "no tools"
$b unshare -n -m $b sh /init second access-point &
ap=$!
until [ -e /lab/apart ]; do $b sleep 0.1; done
tool ip link set eth0 netns $ap || say "the cable stays"
(
    until [ -e /sys/class/ieee80211/phy1 ]; do $b sleep 0.1; done
    tool iw phy phy1 set netns $ap || say "the radio stays"
    echo > /lab/given
) &
exec /lab/limpet-init second
