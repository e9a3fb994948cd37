"""What the algorithms of strategies/ are worth on uneven hospitals: runs, tables and expectations."""
