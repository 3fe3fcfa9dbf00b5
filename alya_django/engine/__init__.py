"""A row's way through a worker: claimed, processed, recorded; and its batch's, finished."""
