"""What run directories say of their runs, and which runs belong side by side."""
