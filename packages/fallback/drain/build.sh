#!/usr/bin/env bash
# `doctl serverless deploy` runs this, on the deploying machine.
cd "$(dirname "${BASH_SOURCE[0]}")" && exec bash ../../build.sh
