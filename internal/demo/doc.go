// Package demo combines the four services: it contains the commands for this order flow (up, down,
// demo, order, accounts, stock), their samples, and the models that package check explores.
package demo
