#!/bin/sh
# Downloads CUB-200-2011 (1.2 GB, 2.5 GB while unpacking) into DATA_ROOT/cub/CUB_200_2011.
# Can be interrupted and run again at any time.
if [ $# -ne 1 ] || [ -z "$1" ] || [ "${1#-}" != "$1" ]; then
    echo "usage: $0 DATA_ROOT" >&2
    exit 2
fi
exec "${PYTHON:-python}" -m t2v_lightning.data.download cub200 --root "$1"
