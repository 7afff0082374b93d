"""What every check uses: an exercise, a trial of an answer, a world to try it in."""
