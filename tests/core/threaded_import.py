"""A module that starts a thread when it is imported, as some libraries do: after it no process can be forked soundly."""

import threading
import time

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
