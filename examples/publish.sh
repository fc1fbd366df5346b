#!/bin/sh
# Publishes with curl: one price, then a batch, then the end of a topic.
#
#     examples/publish.sh [API]
#
# API is the address of tickring's publishing API (http://127.0.0.1:9002 unless given). If the API needs a key, the environment
# variable TICKRING_API_KEY has it.
set -eu
api=${1:-http://127.0.0.1:9002}

# request ARGUMENT...: curl, with the key if there is one. The key does not appear in the list of processes.
request() {
  if [ -n "${TICKRING_API_KEY:-}" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$TICKRING_API_KEY" | curl --silent --show-error --fail-with-body --config - "$@"
  else
    curl --silent --show-error --fail-with-body "$@"
  fi
}

# publish JSON: the server's answer; fails if the server refuses any of it.
publish() {
  request --header 'Content-Type: application/json' --data "$1" "$api/api/v1/publish"
  echo
}

publish '{"topic": "md.AAPL", "data": {"last": 187.40, "bid": 187.39, "ask": 187.41}}'
publish '[{"topic": "md.MSFT", "data": {"last": 402.10}}, {"topic": "md.SAP", "data": {"last": 121.30}}]'

# The % of a topic's name is written %25 in a path; this name has none.
request --request DELETE "$api/api/v1/topics/md.SAP"
