"""The boards the assistant is made for, and what is measured and written on one."""
