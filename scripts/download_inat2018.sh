#!/bin/sh
# Downloads iNaturalist 2018 (120 GB, 319 GB once unpacked) into DATA_ROOT/inat2018.
# Can be interrupted and run again at any time.
if [ $# -ne 1 ] || [ -z "$1" ] || [ "${1#-}" != "$1" ]; then
    echo "usage: $0 DATA_ROOT" >&2
    exit 2
fi
exec "${PYTHON:-python}" -m t2v_lightning.data.download inat2018 --root "$1"
