#!/usr/bin/env bash
# The main job from start to finish, on the tiny Flux and the rehearsal Hub. Every step is a command
# that you could type yourself.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${DEMO_OUT:-$root/demo-out}
tiny=$root/tests/checkpoints/tiny-flux
began=$SECONDS

if [ -t 1 ]; then bold=$'\e[1m'; plain=$'\e[0m'; else bold=; plain=; fi
step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
run() { printf '%s$ %s%s\n' "$bold" "${*//$root\//}" "$plain"; "$@"; }

rm -rf "$out"
mkdir -p "$out"
variants=("$out/variants/tiny-flux-bnb-nf4" "$out/variants/tiny-flux-torchao-int8"
          "$out/variants/tiny-flux-gguf-q8_0")
recipe=$root/recipes/examples/tiny-flux.yaml

step "A rehearsal Hub on this machine"
fluxconv hub serve "$out/hub" --port 0 --ready-file "$out/hub.env" --run "$out/variants" &
hub=$!
trap 'kill $hub 2>/dev/null || true' EXIT
for _ in $(seq 100); do [ -s "$out/hub.env" ] && break; sleep 0.2; done
# shellcheck source=/dev/null
. "$out/hub.env"
export HF_ENDPOINT HF_TOKEN
export HF_HOME=$out/hf-home   # keeps the rehearsal out of your own cache
echo "listening at $HF_ENDPOINT, keeping everything in ${out#"$root"/}/hub"

step "A release as a file, and what it would take"
run cat "$recipe"
run fluxconv run "$recipe" -o "$out/variants" --dry-run

step "The whole release: three variants in one pass, validated, measured, with cards, published"
run fluxconv run "$recipe" -o "$out/variants" | tee "$out/run.txt"
slug=$(sed -n 's|.*/collections/||p' "$out/run.txt")

step "Again: nothing is left to do"
run fluxconv run "$recipe" -o "$out/variants"
run fluxconv status "$out/variants"

step "Somebody else downloads the collection, and every hash is checked"
run fluxconv download "$slug" -o "$out/downloaded"

step "... and draws with plain diffusers, without fluxconv"
# The libraries' own bars and warnings go to a file; it is shown if something goes wrong.
(cd "$out" && run python "$root/docs/draw.py" downloaded/tiny-flux-torchao-int8 drawn.png \
  2> draw.log) || { cat "$out/draw.log" >&2; exit 1; }

step "What was made"
run fluxconv validate --show "${variants[@]}"
cat <<END

report           ${out#"$root"/}/variants/comparison-tiny-flux/report.html  (open it in a browser)
contact sheets   ${variants[0]#"$root"/}/images/contact-sheet.png  (and in the other two)
cards            ${variants[0]#"$root"/}/README.md  (and in the other two)
drawn picture    ${out#"$root"/}/drawn.png
took             $((SECONDS - began)) s

The same with FLUX.1-dev (about 34 GB of disk for the source, what \`--dry-run\` says for the
variants, and your Hub token from \`hf auth login\`): choose a recipe in recipes/examples/, write your
name into it, and

  fluxconv run recipes/examples/flux-dev-guide.yaml --dry-run
  fluxconv run recipes/examples/flux-dev-guide.yaml
END
