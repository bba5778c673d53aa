"""From judged devices to what a container gets: offers, container edits, the answer to Allocate, preference."""
