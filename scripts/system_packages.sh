#!/usr/bin/env bash
# Installs the programs that only tests need, where it may: as root on Debian. Says what it does.
# SYSTEM_PACKAGES=no declines. Never fails: a test whose program is missing skips by name.
set -u
PATH="$PATH:/usr/sbin:/sbin"

# program:package
wanted=(
    fio:fio
    blktrace:blktrace
    blkparse:blktrace
    nbdkit:nbdkit
    qemu-img:qemu-utils
    qemu-nbd:qemu-utils
    openssl:openssl
    chromium:chromium
)

missing_packages() {
    local pair
    for pair in "${wanted[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done | sort -u
}

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@" \
        >"$log" 2>&1
}

mapfile -t missing < <(missing_packages)
[ "${#missing[@]}" -eq 0 ] && exit 0

skipping="tests that need them are skipped by name"
if [ "${SYSTEM_PACKAGES:-yes}" = no ]; then
    echo "system packages: not installed, as asked (SYSTEM_PACKAGES=no): ${missing[*]}; $skipping"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "system packages: no apt-get on this system; missing: ${missing[*]}; $skipping"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "system packages: not root; missing: ${missing[*]}; $skipping"
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "system packages: apt-get install ${missing[*]}"
if ! install_packages "${missing[@]}"; then
    echo "system packages: apt-get update, then once more"
    apt-get update --quiet >"$log" 2>&1
    if ! install_packages "${missing[@]}"; then
        # One package that cannot be had must not keep the others out.
        for package in "${missing[@]}"; do
            install_packages "$package" || tail -n 1 "$log"
        done
    fi
fi
mapfile -t missing < <(missing_packages)
[ "${#missing[@]}" -eq 0 ] || echo "system packages: still missing: ${missing[*]}; $skipping"
exit 0
