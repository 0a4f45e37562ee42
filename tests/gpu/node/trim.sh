#!/bin/sh
# trim.sh ROOT: take from a new root file system what a node does not need, and what every machine must have for itself.
set -eu
root=$1
cd "$root"
rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* usr/share/doc/* usr/share/man/* usr/share/ieee-data debootstrap
find usr/share/locale -mindepth 1 -maxdepth 1 ! -name 'locale.alias' -exec rm -rf {} +
find . -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
rm -f etc/ssh/ssh_host_* etc/machine-id
: >etc/machine-id
mkdir -p var/log/journal var/cache/apt/archives/partial var/lib/apt/lists/partial usr/local/nvidia
# Units that have no place in a namespace of somebody else's machine.
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-networkd.service \
  systemd-networkd.socket systemd-resolved.service systemd-logind.service systemd-sysctl.service \
  systemd-modules-load.service systemd-timesyncd.service getty.target console-getty.service getty@tty1.service \
  apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done
mkdir -p etc/ld.so.conf.d
echo /usr/local/nvidia/lib64 >etc/ld.so.conf.d/nvidia.conf
ln -sf /usr/local/nvidia/bin/nvidia-smi usr/bin/nvidia-smi
# The engine is there, and stopped, as on a machine that has it installed.
mkdir -p etc/docker
