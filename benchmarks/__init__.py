"""Measurements that anyone can repeat: each folder is one question, with its instances, its run and its report."""
