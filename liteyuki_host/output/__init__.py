"""What processes print, from their pipes to the console and the log files. Nobody who prints or logs waits."""
