// Package demo puts the four services together: the commands of the command line that are about
// this very choreography (up, down, demo, order), its samples, and the model that package check
// explores.
package demo
