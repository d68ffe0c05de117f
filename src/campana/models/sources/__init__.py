"""Where models come from, one file each: a package of a Python index, a hub, a folder or file of this machine."""
