#!/bin/sh
# Boots systemd as process 1 of namespaces of its own, over a view of a tree
# that it can only read. Ends when its standard input does, and leaves nothing.
#   boot.sh CGROUP TREE UNITS LASTECHO MOUNTPOINT
set -eu
if [ "$1" != inside ]; then
	cgroup=$1
	mkdir "$cgroup"
	# A process that is killed takes with it all that is inside.
	sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" \
		setpriv --pdeathsig KILL \
		unshare --mount --pid --fork --net --uts --ipc --cgroup --kill-child \
		sh "$0" inside "$2" "$3" "$4" "$5" </dev/null &
	echo $!
	cat >/dev/null
	kill -KILL $! 2>/dev/null || :
	wait
	for _ in $(seq 200); do
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
		sleep 0.05
	done
	echo "$cgroup cannot be removed" >&2
	exit 1
fi
tree=$2 units=$3 program=$4 root=$5
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$root/upper,workdir=$root/work" "$root/root"
cd "$root/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do
	mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
cp "$program" usr/local/bin/lastecho
# Nothing runs but what systemd itself needs, and what is started.
rm -rf etc/systemd/system/*
cp "$units"/* etc/systemd/system/
: >etc/machine-id
: >etc/fstab
for unit in systemd-udevd systemd-udev-trigger systemd-timesyncd systemd-resolved systemd-networkd \
	systemd-logind systemd-firstboot systemd-sysusers systemd-tmpfiles-setup systemd-tmpfiles-setup-dev \
	systemd-random-seed systemd-update-utmp getty@tty1 console-getty dbus e2scrub_reap; do
	ln -sf /dev/null "etc/systemd/system/$unit.service"
done
ip link set lo up
mkdir old
pivot_root . old
cd /
umount -l old
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=basic.target --show-status=0 --log-target=journal
