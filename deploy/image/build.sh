#!/usr/bin/env bash
# Builds the image from Debian's packages and wheels, with no container registry and no daemon. As root, on Debian, after
# .ci/tools. docs/how-to/build-image.md has the rest.
#
#   build.sh [--arch amd64|arm64] [--debug] [--tag NAME] [--output FILE] [--fresh]
#
#   --arch     the platform of the image (this machine's); nothing of it is run while building
#   --debug    the variant with a busybox shell in /busybox
#   --tag      its name (registry.example/genplug:VERSION, with -debug for that variant)
#   --output   also write FILE: a docker-archive if it ends in .tar, else a folder in the OCI layout
#   --fresh    make the base again (Debian's newest packages) and use no layer of an earlier build
#
# Prints the image's ID, which is the digest of its configuration. GENPLUG_BUILD_ROOT is where images and layers are kept.
# SOURCE_DATE_EPOCH is the time of every file: 0 unless set, so that an unchanged layer stays the same layer.
set -euo pipefail

arch=$(dpkg --print-architecture) target=genplug tag='' output='' fresh=false
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=$2 && shift 2 ;;
    --debug) target=debug && shift ;;
    --tag) tag=$2 && shift 2 ;;
    --output) output=$(realpath --canonicalize-missing "$2") && shift 2 ;;
    --fresh) fresh=true && shift ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' genplug/__init__.py)
suffix=$([ "$target" = genplug ] || echo "-$target")
tag=${tag:-registry.example/genplug:$version$suffix}
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
[ "$revision" = unknown ] || [ -n "${REVISION:-}" ] || git diff --quiet HEAD || revision+=-dirty
root=$(realpath --canonicalize-missing "${GENPLUG_BUILD_ROOT:-${GENPLUG_TOOLS:-$HOME/.cache/genplug/tools}/build}")
mkdir -p "$root"

# One build at a time in one storage: two would make the same base twice.
exec 9>"$root/lock" && flock 9

# Overlay where a file system of its own can carry it; in a container it often cannot, and vfs copies each layer instead.
mkdir -p "$root"/probe/{lower,upper,work,merged}
if mount -t overlay -o "lowerdir=$root/probe/lower,upperdir=$root/probe/upper,workdir=$root/probe/work" \
  overlay "$root/probe/merged" 2>/dev/null; then
  umount "$root/probe/merged" && driver=overlay
else
  driver=vfs
fi
cat >"$root/storage.conf" <<STORAGE
[storage]
driver = "$driver"
graphroot = "$root/$driver"
runroot = "$root/run-$driver"
[storage.options.overlay]
# A mount that outlives the build would keep this folder from being removed.
skip_mount_home = "true"
STORAGE
export CONTAINERS_STORAGE_CONF=$root/storage.conf

if $fresh; then buildah rmi --all --force >/dev/null; fi
bases=$(deploy/image/base.sh "$arch")

# pip in the build is configured as pip is here; a secret, because it names hosts and may hold a password.
secrets=$(mktemp -d)
# This buildah leaves a container behind for each stage that another one copies from.
trap 'rm -rf "$secrets"; buildah rm --all >/dev/null' EXIT
python3 - "$secrets" <<'PYTHON'
import ast, os, re, shutil, subprocess, sys
from pathlib import Path

folder = Path(sys.argv[1])
listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings = dict(re.findall(r"^[\w:.-]+\.([\w-]+)=(.*)$", listing.stdout.replace(":env:.", "env."), re.MULTILINE))
certificates = ast.literal_eval(settings.get("cert", "''")) or os.environ.get("SSL_CERT_FILE", "")
if certificates:
    shutil.copy(certificates, folder / "ca.pem")
kept = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
lines = [f"{name} = {str(ast.literal_eval(settings[name])).strip()}" for name in kept if name in settings]
(folder / "pip.conf").write_text("\n".join(["[global]", *(line.replace("\n", "\n  ") for line in lines), ""]))
PYTHON
given=(--secret "id=pip.conf,src=$secrets/pip.conf")
[ ! -e "$secrets/ca.pem" ] || given+=(--secret "id=ca.pem,src=$secrets/ca.pem")
while read -r base; do given+=(--build-arg "$base"); done <<<"$bases"

# Written out: this buildah takes a label with a build argument from an earlier build, whatever the argument was then.
epoch=${SOURCE_DATE_EPOCH:-0}
created=$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
sed "s|\${CREATED}|$created|; s|\${VERSION}|$version|; s|\${REVISION}|$revision|" deploy/Containerfile >"$secrets/Containerfile"

buildah bud --quiet --isolation chroot --layers --pull=never --identity-label=false --timestamp "$epoch" \
  --arch "$arch" --file "$secrets/Containerfile" --target "$target" --tag "$tag" --ignorefile .dockerignore \
  "${given[@]}" --build-arg "BUILDPLATFORM=linux/$(dpkg --print-architecture)" --build-arg "TARGETARCH=$arch" . >/dev/null

if [ -n "$output" ]; then
  rm -rf "$output"
  mkdir -p "$(dirname "$output")"
  case $output in
    *.tar) buildah push --quiet "$tag" "docker-archive:$output:$tag" >&2 ;;
    *) buildah push --quiet --format oci "$tag" "oci:$output:${tag##*:}" >&2 ;;
  esac
fi
buildah inspect --type image --format 'sha256:{{.FromImageID}}' "$tag" && echo
