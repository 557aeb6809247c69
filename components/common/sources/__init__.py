"""Where pictures and base models come from, and what names the state they are in: folders, buckets, the Hub."""
