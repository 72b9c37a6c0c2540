"""trainSyncNet.py on machines that do not share --save_path: the folder of process N ends with N."""

import os
import sys

import trainSyncNet

if __name__ == "__main__":
    os.environ["LOCAL_RANK"] = "0"
    sys.argv[sys.argv.index("--save_path") + 1] += os.environ["RANK"]
    sys.exit(trainSyncNet.main())
