"""What makes ordinary layers work, and work fast, under ``torch.vmap``: all of it, in one room."""
