#!/usr/bin/env bash
# Install Debian packages that are not there yet: scripts/debian.sh WHY PACKAGE...
# As root, or by sudo without a question; otherwise one clear line and exit 1.
set -eu
why=$1; shift
missing=()
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "$why needs ${missing[*]} (Debian names): install them with this system's package manager" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
else
    echo "$why needs ${missing[*]}: run 'apt-get install ${missing[*]}' as root, then try again" >&2
    exit 1
fi
echo "installing ${missing[*]} for $why" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    # Lock::Timeout: another apt may be at work. Services are not started: the tests start their own.
    "${as_root[@]}" DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 install -y -q \
        --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null
}
if ! install; then
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -q >>"$log" 2>&1 </dev/null || true
    if ! install; then
        tail -n 5 "$log" >&2
        echo "could not install ${missing[*]} for $why (last lines above)" >&2
        exit 1
    fi
fi
