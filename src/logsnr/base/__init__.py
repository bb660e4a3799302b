"""What everything else stands on: errors, files, seeds, threads, columns of text."""
