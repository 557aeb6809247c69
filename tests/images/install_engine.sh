#!/bin/sh
# Installs on Debian what `make test-images` needs: podman, the tool that makes a base image where no registry can be
# reached, and a registry to push to.
set -eu
set -- podman runc netavark iptables mmdebstrap docker-registry
if ! dpkg --status "$@" >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
fi
