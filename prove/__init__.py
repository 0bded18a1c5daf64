"""PROVE: does this loss really help?"""
