"""Things that run to completion: data, training, fleet runs, reports."""
