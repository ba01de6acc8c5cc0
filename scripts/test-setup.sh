#!/usr/bin/env bash
# What the tests need beside Python: peers from Debian's packages, and Twilio's SDK for Node.
# A missing peer fails in CI (CI is set); elsewhere its tests are skipped, after one line that says so.
set -eu
cd "$(dirname "$0")/.."

peer() { # WHY PROGRAM PACKAGE...
    local why=$1 program=$2
    shift 2
    command -v "$program" >/dev/null && return 0
    [ -x "/usr/sbin/$program" ] && return 0
    scripts/debian.sh "$why" "$@" && return 0
    [ -z "${CI:-}" ] || exit 1
    echo "going on without: the tests for $why will be skipped" >&2
}

peer "interoperation with Kannel" bearerbox kannel
peer "interoperation with SIPp" sipp sip-tester
peer "interoperation with baresip" baresip baresip-core
peer "interoperation with Kamailio" kamailio kamailio
[ -n "$(ls -d /usr/lib/*/kamailio/modules/tls.so 2>/dev/null)" ] || peer "TLS at Kamailio" tls.so kamailio-tls-modules
peer "FFmpeg as the oracle of audio files" ffmpeg ffmpeg
peer "speech in languages other than English" espeak-ng espeak-ng
[ -n "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || peer "storage on PostgreSQL" postgres postgresql
peer "the memory store on Valkey" redis-server redis-server
peer "the memory store behind Sentinel" redis-sentinel redis-sentinel
peer "the media engine's helper in C" cc gcc libc6-dev
if [ -n "${TRUNKLINE_TEST_CLUSTER:-}" ]; then peer "the suites against a cluster" haproxy haproxy; fi
peer "the lab's networks" ip iproute2
peer "the lab's networks" nft nftables
peer "the commands that the documentation shows" curl curl
peer "tests that look at processes" ps procps
peer "Twilio's SDK for Node" node nodejs
peer "Twilio's SDK for Node" npm npm

# Once, before several servers that start at the same time would wait for it.
.venv/bin/python -m trunkline.media.native || [ -z "${CI:-}" ] || exit 1

node=tests/conformance/node
want=$(sha256sum "$node/package.json" | cut -d' ' -f1)
if command -v npm >/dev/null && [ "$(cat "$node/node_modules/.installed" 2>/dev/null)" != "$want" ]; then
    echo "installing Twilio's SDK for Node into $node" >&2
    log=$(mktemp)
    if (cd "$node" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error) >"$log" 2>&1 </dev/null; then
        echo "$want" >"$node/node_modules/.installed"
    else
        tail -n 5 "$log" >&2
        echo "npm could not install Twilio's SDK (last lines above)" >&2
        [ -z "${CI:-}" ] || exit 1
    fi
    rm -f "$log"
fi
