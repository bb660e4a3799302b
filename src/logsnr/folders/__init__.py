"""The layout of folders that outlive a process."""
