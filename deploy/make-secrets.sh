#!/bin/sh
# Writes secrets.toml from the example beside this script, with a cookie_secret of 64 random digits:
#   deploy/make-secrets.sh /opt/irl-lens/.streamlit/secrets.toml
# The file is readable by its owner alone; one that is there already is left as it is.
set -eu
to=${1:?name the file to write, such as .streamlit/secrets.toml}
if [ -e "$to" ]; then
    echo "$to is there already, and is left as it is; move it away first" >&2
    exit 1
fi
secret=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
[ "${#secret}" -eq 64 ] || { echo "no randomness from /dev/urandom" >&2; exit 1; }
umask 077
set -C    # a file that somebody else makes meanwhile is not written over
sed "s/^cookie_secret = \"\"/cookie_secret = \"$secret\"/" "$(dirname "$0")/secrets.toml.example" > "$to"
